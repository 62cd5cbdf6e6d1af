//! The one suite that every store must pass: each promise of [`Store`](super::Store) as a story in turns, told to the
//! model and to SQLite alike. `random.rs` compares the two step by step; `subject.rs` is what the stories are told to.

mod dependencies;
mod edits;
mod fair;
mod life;
mod lists;
mod prune;
mod queues;
mod random;
mod schedules;
mod subject;
mod turns;
mod unique;

use subject::{MemorySubject, SqliteSubject, World};

/// Each story as a test of each store.
macro_rules! suite {
    ($($module:ident: $($story:ident)*;)*) => {
        mod memory {
            $($(#[test]
            fn $story() {
                super::$module::$story(&mut super::World::new(super::MemorySubject::new()));
            })*)*
        }
        mod sqlite {
            $($(#[test]
            fn $story() {
                super::$module::$story(&mut super::World::new(super::SqliteSubject::new()));
            })*)*
        }
    };
}

suite! {
    life:
        a_run_is_recorded_in_one_batch_or_two
        each_end_counts_what_it_should
        a_stale_lease_changes_nothing
        the_same_end_said_twice_is_recorded_once
        done_wins_over_a_cancel_and_every_other_end_does_not
        a_cancel_between_start_and_end_is_not_lost
        progress_and_checkpoints_need_the_lease
        spawned_tasks_come_with_their_outcome
        a_bad_spawn_fails_its_run
        a_row_finished_by_sql_is_believed_and_one_that_was_not_is_dead
        rows_changed_under_the_broker_hurt_nobody
        a_hand_out_that_a_cancel_overtook_is_counted
        a_row_moved_while_it_ran_goes_where_its_row_says
        requeue_starts_afresh_and_knows_twins
        cancel_tells_what_it_did
        failures_are_kept_newest_hundred;
    queues:
        load_is_in_order_of_due_time_and_id
        rows_without_a_lane_belong_to_the_default_of_their_kind
        load_leaves_out_what_it_is_told_to
        load_is_bounded_in_bytes_but_gives_one
        later_rows_are_told_and_come_when_they_are_due
        rows_without_run_at_are_due_whatever_the_clock_says
        bad_rows_become_dead_with_a_reason
        a_head_full_of_bad_rows_hides_nothing
        a_look_finds_what_a_turn_would_and_writes_nothing
        intake_tells_new_queues_once
        the_sweep_finds_what_apps_change
        a_requeued_row_of_a_wrong_type_takes_no_other_with_it
        rows_that_came_while_no_broker_ran_are_judged_too
        a_lane_of_earlier_settings_keeps_its_backlog
        expiry_bounds_the_first_start_only
        counts_follow_and_are_mended;
    fair:
        keys_are_read_by_turns_and_weight
        a_million_rows_of_one_key_hold_up_nobody
        closed_keys_are_passed_over_and_told
        rows_of_many_keys_are_read_when_their_time_comes
        rows_of_many_keys_are_read_when_an_app_moves_them
        rows_of_many_keys_are_read_when_they_come_back
        each_key_is_read_in_order_of_due_time_and_id
        keys_that_no_task_may_have_are_rejected
        news_of_keys_is_told
        the_key_is_read_with_the_row
        values_of_keys_outlive_the_broker;
    turns:
        a_turn_that_is_rolled_back_never_was
        a_change_is_told_once_wherever_it_lands
        a_second_broker_takes_over
        an_epoch_knows_how_the_last_one_ended
        submits_are_all_or_none_and_said_twice_stored_once
        a_live_key_gives_the_same_task
        endings_tell_pruned_from_never_known
        lists_come_in_pages
        the_place_in_a_lane_is_counted
        a_key_that_lives_again_is_told
        a_paused_lane_stays_paused
        what_is_set_of_kinds_and_lanes_is_kept
        rows_without_a_lane_follow_their_kind;
    prune:
        ended_rows_go_by_their_age
        outcomes_and_kinds_have_ages_of_their_own
        counts_keep_the_newest
        a_count_takes_none_that_age_has_made_few
        as_many_are_left_as_are_kept_whatever_vanishes
        other_rules_begin_a_walk_anew
        a_watched_row_is_kept
        a_walk_stops_at_young_rows_and_an_undone_one_begins_anew;
    edits:
        a_moved_row_is_read_in_its_new_lane_and_keeps_its_counters
        a_row_that_is_due_later_can_be_due_at_once
        a_purge_deletes_what_has_ended
        cancel_and_requeue_are_edits_too
        a_task_that_is_given_up_says_why
        a_filter_meets_what_it_says
        a_walk_goes_on_where_it_stopped
        a_dry_run_says_what_would_be_done;
    schedules:
        a_schedule_fires_each_slot_once
        what_passed_while_nobody_looked_is_made_up_for
        a_turn_fires_no_more_than_it_is_asked_to
        many_that_never_come_take_turns
        a_fired_slot_is_never_fired_again
        a_slot_whose_key_is_live_makes_no_second_task
        a_schedule_that_makes_no_sense_costs_nobody_else_anything
        a_change_by_sql_is_all_it_takes
        a_paused_schedule_fires_nothing_and_makes_up_for_nothing
        a_clock_that_was_far_ahead_silences_no_schedule
        slots_are_remembered_to_a_bound
        a_fired_turn_that_is_undone_never_was
        schedules_are_added_changed_and_removed_by_the_wire
        a_schedule_of_the_wire_that_makes_no_sense_is_refused;
    dependencies:
        a_child_is_queued_when_the_last_parent_has_ended
        who_is_let_go_is_told_once
        a_child_that_comes_late_is_judged_at_once
        a_failure_runs_down_the_line_but_where_it_does_not_matter
        every_hand_that_ends_a_parent_lets_its_children_go
        rows_that_could_wait_for_ever_are_refused_with_the_ids
        what_is_added_later_counts_and_may_close_a_ring
        bad_values_of_a_waiting_row_are_told_at_once
        a_waiting_row_can_be_cancelled_and_expires
        an_undone_turn_lets_nobody_go
        what_happened_while_no_broker_ran_is_found
        a_row_that_an_app_made_wait_is_found_in_the_end
        parents_are_kept_as_long_as_their_results_may_be_asked_for
        a_wide_fan_is_let_go_in_parts;
    lists:
        a_list_waits_for_itself_in_any_order
        what_a_list_may_not_say_is_refused_whole
        a_task_that_was_met_is_waited_for_and_waits_for_nothing_new
        a_ring_through_one_key_is_refused_whole
        a_ring_through_an_id_that_was_guessed_is_refused
        a_group_is_counted_and_its_last_task_waits_for_all
        those_of_a_group_that_run_are_shown_first_and_how_its_last_task_ended
        the_group_is_read_with_the_row
        a_last_task_is_cancelled_with_a_failure_or_runs_anyway
        a_whole_group_is_cancelled_in_parts
        the_tasks_of_a_group_are_listed
        what_a_run_spawns_may_wait_and_join
        what_joins_a_cancelled_group_is_cancelled_with_it
        nothing_joins_a_cancelled_group
        a_spawn_that_would_wait_for_itself_fails_its_run
        a_spawn_that_is_a_ring_through_one_key_fails_its_run
        parents_are_told_in_pages
        a_waiting_row_names_for_whom_it_waits
        a_group_is_kept_whole_as_long_as_it_lives
        an_undone_list_leaves_nothing;
    unique:
        a_done_task_answers_for_its_key_as_long_as_asked
        a_row_is_kept_for_its_window
        a_submit_can_ask_to_be_refused
        a_task_replaces_none_of_its_own_message
        a_spawned_task_can_be_refused_and_replaces_none
        a_queued_row_is_replaced_when_it_is_secured
        a_replaced_row_is_told_to_its_queue
        live_twins_are_found
        wishes_without_a_key_make_no_sense;
}
