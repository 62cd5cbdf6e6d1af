//! Groups and dependencies as far as the core has to do with them: it passes questions on, waits with those who wait for a group, and
//! tells them what its tasks say. Tasks that wait for others are the store's; the core first sees them when they are queued.

use std::collections::BTreeSet;

use laneway_protocol::codec::Room;
use laneway_protocol::limits::{ANSWER_SLACK_MS, WAITS_FOR_MAX};
use laneway_protocol::message::{
    AboutGroup, Answer, Final, Held, ProgressEvent, ProgressNoted, TaskRow, WaitFor, Waited,
};
use laneway_protocol::{Code, TaskId, TaskState, WireError};

use crate::action::{Ending, FoundGroup, Op};
use crate::broker::Broker;
use crate::event::{Asker, ConnId, ReplyTo};
use crate::limits::{
    ANSWER_LIST_BYTES, CROWD_KEPT_MS, FINALS_BYTES_MAX, GROUP_CANCELLED_MAX, GROUP_WATCHED_MAX, PARENTS_TOLD_MAX,
};
use crate::outcome::cut;
use crate::page::{self, Told};
use crate::place::Place;
use crate::progress::{Events, in_order};
use crate::settle::{Pending, Word};
use crate::time::{Millis, Now};
use crate::timer::Timer;
use crate::waiter::{Asked, Waiter};

/// What a question about a group is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum GroupAsk {
    Show,
    Wait(GroupWait),
}

/// One who waits for a group while the store is asked about it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GroupWait {
    pub(crate) conn: ConnId,
    pub(crate) until: Millis,
    /// What is behind it is to be told.
    pub(crate) place: Place,
    pub(crate) gap: bool,
}

impl Broker {
    pub(crate) fn on_group(&mut self, from: Asker, about: &AboutGroup, now: Now) {
        let AboutGroup { group, cancel } = *about;
        if !cancel {
            let pending = Pending::Group { group, asks: vec![(from.reply, GroupAsk::Show)] };
            return self.ask_store(from.reply, Op::Group { group, live: 0 }, pending, now);
        }
        if let Some(error) = self.intake_refusal() {
            return self.refuse(from.reply, error);
        }
        let pending = Pending::CancelGroup { reply: from.reply, group };
        self.ask_store(from.reply, Op::CancelGroup { group, rows: GROUP_CANCELLED_MAX }, pending, now);
    }

    /// A part of the group was asked to end. Goes on to the last, whether or not its asker is still there.
    pub(crate) fn on_group_cancelled(&mut self, reply: ReplyTo, group: u64, more: bool) {
        if more {
            let op = Op::CancelGroup { group, rows: GROUP_CANCELLED_MAX };
            self.store_for(op, Pending::CancelGroup { reply, group });
        } else {
            self.store_for(Op::Group { group, live: 0 }, Pending::Group { group, asks: vec![(reply, GroupAsk::Show)] });
        }
    }

    pub(crate) fn wait_for_group(&mut self, from: Asker, group: u64, wait: &WaitFor, until: Millis, now: Now) {
        if !wait.tasks.is_empty() || wait.kind.is_some() || wait.unique_key.is_some() {
            let text = "a group is waited for alone: leave tasks, kind and unique_key out";
            return self.refuse(from.reply, WireError::new(Code::BadBody, text).field("group"));
        }
        let (place, gap) = Place::of(wait.cursor, self.epoch);
        let wait = GroupWait { conn: from.conn, until, place, gap: gap || self.has_missed_of_group(group, place) };
        if !self.has_news_of_group(group, wait, now) && self.listens_at_once(from.reply, group, wait) {
            return;
        }
        self.ask_group_again(group, vec![(from.reply, wait)]);
    }

    /// Asks the store where a group stands, once for all of these.
    pub(crate) fn ask_group_again(&mut self, group: u64, waits: Vec<(ReplyTo, GroupWait)>) {
        for (reply, wait) in &waits {
            self.hold_question(*reply, wait.until.after(ANSWER_SLACK_MS));
            self.waiters.expect(wait.conn, *reply);
        }
        let asks = waits.into_iter().map(|(reply, wait)| (reply, GroupAsk::Wait(wait))).collect();
        self.store_for(Op::Group { group, live: GROUP_WATCHED_MAX }, Pending::Group { group, asks });
    }

    pub(crate) fn on_group_found(
        &mut self,
        group: u64,
        asks: Vec<(ReplyTo, GroupAsk)>,
        found: Option<&FoundGroup>,
        now: Now,
    ) {
        for (reply, ask) in asks {
            if let GroupAsk::Wait(wait) = ask {
                self.waiters.unexpect(wait.conn, reply);
            }
            if !self.close_question(reply) {
                continue;
            }
            let Some(found) = found.cloned() else {
                let text = format!("no task is in group {group}, and no row of task_groups tells of it");
                self.refuse(reply, WireError::new(Code::NotFound, text).field("group"));
                continue;
            };
            match ask {
                GroupAsk::Show => self.answer(reply, Answer::Group(found.row)),
                GroupAsk::Wait(wait) => self.on_group_stands(reply, wait, found, now),
            }
        }
    }

    /// What the store tells of a group that somebody waits for.
    fn on_group_stands(&mut self, reply: ReplyTo, mut wait: GroupWait, found: FoundGroup, now: Now) {
        let (group, GroupWait { conn, until, place, .. }) = (found.row.group, wait);
        wait.gap |= self.has_missed_of_group(group, place);
        let tells_rows = matches!(place, Place::Rows(_));
        let has_news = self.has_news_of_group(group, wait, now);
        if found.live.is_empty() || (!tells_rows && has_news) {
            return self.tell_group(reply, wait, found, Vec::new());
        }
        if !has_news && self.listens_at_once(reply, group, wait) {
            return;
        }
        // First on the list, then the look, as for single tasks; it shows which have ended since, and the progress in the rows.
        let FoundGroup { row, live, .. } = found;
        let asked = Asked::Group { group, row: Some(Box::new(row)), place, gap: wait.gap, checked: false };
        let pending = live.iter().copied().collect();
        let alarm = until.after(ANSWER_SLACK_MS);
        self.add_waiter(reply, Waiter { conn, pending, finals: Vec::new(), until, alarm, asked });
        self.store_for(Op::Endings(live), Pending::Check { reply });
    }

    /// Lets one for whom there is nothing to tell listen without a look, where tasks of the group are watched already and rows are no
    /// news.
    fn listens_at_once(&mut self, reply: ReplyTo, group: u64, wait: GroupWait) -> bool {
        let GroupWait { conn, until, place, gap } = wait;
        let can = matches!(place, Place::Events(_)) && self.waiters.has_crowd(group);
        if can {
            let asked = Asked::Group { group, row: None, place, gap, checked: true };
            let waiter = Waiter { conn, pending: BTreeSet::new(), finals: Vec::new(), until, alarm: until, asked };
            self.add_waiter(reply, waiter);
            self.listen(reply, group);
        }
        can
    }

    /// The live tasks of a group were looked at for one who waits for it; `rows` is what is to be told of their progress.
    pub(crate) fn on_group_looked(&mut self, reply: ReplyTo, group: u64, rows: Vec<ProgressEvent>, now: Now) {
        let waiter = self.waiters.get_mut(reply).expect("the caller has looked it up");
        if waiter.pending.is_empty() {
            // Others may have joined.
            return self.answer_waiter(reply, Vec::new());
        }
        let Asked::Group { row, place, gap, .. } = &mut waiter.asked else { return };
        let (row, place, gap) = (row.take().expect("it is there until the look is over"), *place, *gap);
        if gap || waiter.until <= now.mono || !rows.is_empty() || self.has_said(group, place) {
            let Some(Waiter { conn, until, pending, .. }) = self.drop_waiter(reply) else { return };
            let found = FoundGroup { row: *row, live: pending.into_iter().collect(), last: None };
            return self.tell_group(reply, GroupWait { conn, until, place, gap }, found, rows);
        }
        self.listen(reply, group);
    }

    /// One who waits for a group has been told everything that was said until now.
    fn listen(&mut self, reply: ReplyTo, group: u64) {
        let event_n = self.event_n;
        if let Some(Waiter { asked: Asked::Group { place, .. }, .. }) = self.waiters.get_mut(reply) {
            *place = Place::Events(event_n);
        }
        let (left, until) = self.waiters.listen(reply, group);
        if let Some(until) = until {
            self.timers.clear(until, Timer::Crowd(group));
        }
        self.unwatch(left);
    }

    /// A task of this group has said something, or what is watched of it has ended: whoever listens is told where the group stands.
    pub(crate) fn ask_for_listeners(&mut self, group: u64) {
        let mut waits = Vec::new();
        for reply in self.waiters.listeners(group) {
            let Some(Waiter { conn, until, asked, .. }) = self.drop_waiter(reply) else { continue };
            if let Asked::Group { place, gap, .. } = asked {
                waits.push((reply, GroupWait { conn, until, place, gap }));
            }
        }
        if !waits.is_empty() {
            self.ask_group_again(group, waits);
        }
    }

    /// The tasks that were watched for those who listen to a group have ended.
    pub(crate) fn on_crowd_over(&mut self, group: u64) {
        self.ask_for_listeners(group);
        self.drop_crowd(group);
    }

    pub(crate) fn drop_crowd(&mut self, group: u64) {
        let (left, until) = self.waiters.drop_crowd(group);
        if let Some(until) = until {
            self.timers.clear(until, Timer::Crowd(group));
        }
        self.unwatch(left);
    }

    /// At the end of each event: tasks of groups that nobody listens to any more stay watched for a moment.
    pub(crate) fn keep_crowds(&mut self, now: Now) {
        let until = now.mono.after(CROWD_KEPT_MS);
        let (kept, gone) = self.waiters.keep_deserted(until, self.settings.waiters_max);
        for group in kept {
            self.timers.set(until, Timer::Crowd(group));
        }
        for group in gone {
            self.drop_crowd(group);
        }
    }

    /// Answers one who waits for a group, `rows` first: the progress that the table shows and that is news.
    fn tell_group(&mut self, reply: ReplyTo, wait: GroupWait, found: FoundGroup, mut rows: Vec<ProgressEvent>) {
        let GroupWait { place, gap, .. } = wait;
        let FoundGroup { row, live, last } = found;
        rows.sort_by_key(|event| event.n);
        let mut pending: BTreeSet<TaskId> = live.into_iter().collect();
        let events = rows.iter().chain(in_order(self.words_of_group(row.group), place.events_after()));
        let Told { finals, events, cut_short } = page::told_of_group(last, events, &mut pending);
        let cursor = place.behind(&events, rows.len(), cut_short, self.event_n).cursor(self.epoch);
        let pending = pending.into_iter().collect();
        let (not_found, pruned, group) = (Vec::new(), Vec::new(), Some(row));
        self.answer(reply, Answer::WaitFor(Waited { cursor, gap, events, finals, pending, not_found, pruned, group }));
    }

    /// What is kept of what the tasks of a group have said.
    fn words_of_group(&self, group: u64) -> impl Iterator<Item = &Events> {
        let running = self.running.values().filter(move |task| task.group == Some(group)).map(|task| &task.events);
        running.chain(self.last_words.of_group(group))
    }

    /// Whether there is something to be told at once, but for rows: the time is over, or tasks have spoken.
    fn has_news_of_group(&self, group: u64, wait: GroupWait, now: Now) -> bool {
        wait.gap || wait.until <= now.mono || self.has_said(group, wait.place)
    }

    /// Whether a task of a group has said something behind this place.
    fn has_said(&self, group: u64, place: Place) -> bool {
        let after = place.events_after();
        self.words_of_group(group).any(|events| events.after(after).next().is_some())
    }

    /// Whether events of a group's tasks behind this place are not kept any more. Who has heard nothing yet misses nothing.
    pub(crate) fn has_missed_of_group(&self, group: u64, place: Place) -> bool {
        let after = place.events_after();
        place != Place::Rows(0)
            && (self.last_words.gap_of_groups_after(after)
                || self.words_of_group(group).any(|events| events.gap_after(after)))
    }

    pub(crate) fn on_parents_found(&mut self, word: Word, endings: Vec<(TaskId, Ending)>, more: bool) {
        if !self.close_question(word.reply) {
            return;
        }
        let Word { reply, lease, event, .. } = word;
        if !self.is_running(Held(event.task, lease)) {
            return self.refuse_stale(reply, event.task);
        }
        let mut noted = ProgressNoted { cancel: false, parents: Vec::with_capacity(endings.len()), more };
        let mut room = Room::with_reserved(ANSWER_LIST_BYTES);
        for (task, ending) in endings {
            let mut parent = match ending {
                Ending::Final(ended) => ended,
                // A person has requeued it since.
                Ending::Live { .. } => Final { task, state: TaskState::Queued, result: None, error: None },
                Ending::Pruned | Ending::NotFound => continue,
            };
            parent.error = parent.error.map(cut);
            if !room.take_final(&mut parent) && !noted.parents.is_empty() {
                noted.more = true;
                break;
            }
            noted.parents.push(parent);
        }
        self.tell_word(reply, event, noted);
    }
}

/// How the tasks ended for which a task has waited, those behind an id.
pub(crate) fn parents_of(task: TaskId, after: u64) -> Op {
    Op::Parents { task, after, rows: PARENTS_TOLD_MAX, bytes: FINALS_BYTES_MAX }
}

/// For whom a task waits, in a sentence.
pub fn waits_for(row: &TaskRow) -> String {
    let names: Vec<String> = row.waits_for.iter().take(WAITS_FOR_MAX).map(TaskId::to_string).collect();
    let n = usize::try_from(row.waits_for_n).unwrap_or(usize::MAX).max(names.len());
    match (n, n - names.len()) {
        (0, _) => "it waits for the tasks that it depends on".into(),
        (1, 0) => format!("it waits for task {}, which has not ended", names[0]),
        (n, 0) => format!("it waits for {n} tasks that have not ended: {}", names.join(", ")),
        (n, more) => format!("it waits for {n} tasks that have not ended: {} and {more} more", names.join(", ")),
    }
}
