//! The bounds of what a task may wait for, and the words for what it may not. Shared by every store.

use std::collections::{BTreeMap, BTreeSet};

use laneway_protocol::TaskState;
use laneway_protocol::limits::GROUP_NAME_BYTES_MAX;
use laneway_protocol::message::{After, NewGroup, NewTask, Stored};

use super::validate::{Bad, clipped};

/// Tasks that one may wait for.
pub(crate) const PARENTS_MAX: usize = 10_000;
/// Edges that a search for a ring follows.
pub(crate) const WALK_MAX: usize = 10_000;
/// Edges that one turn follows.
pub(crate) const EDGES_PER_TURN: usize = 4_096;
/// The states of those that have not ended, in the order in which those who wait for a group look at its tasks.
pub(crate) const LIVE_STATES: [TaskState; 3] = [TaskState::Running, TaskState::Queued, TaskState::Waiting];
/// The error of a task that was spawned into its group by one that had been asked to end with it.
pub(crate) const JOINED_TOO_LATE: &str = "its group was cancelled before the task that spawns it had ended";
/// Ids that are named, of a ring or of parents that are not there.
const NAMED_MAX: usize = 16;

pub(super) fn never_waits() -> Bad {
    let reason = "state is 'waiting' without dependencies, so it would wait for ever: insert its rows of task_dependencies \
                  in the same transaction, or insert no state";
    Bad::new("state", reason.into())
}

/// `parents`: at least one, in any order.
pub(super) fn missing_parents(parents: &[i64]) -> Bad {
    let parents: BTreeSet<i64> = parents.iter().copied().collect();
    let named: Vec<String> = parents.iter().take(NAMED_MAX).map(i64::to_string).collect();
    let which = match parents.len() - named.len() {
        0 if named.len() == 1 => format!("task {}, which is", named[0]),
        0 => format!("tasks {}, which are", named.join(", ")),
        more => format!("tasks {} and {more} more, which are", named.join(", ")),
    };
    Bad::new("after", format!("depends on {which} not in the table: insert parents before their children"))
}

pub(super) fn too_many_parents() -> Bad {
    let reason =
        format!("depends on more than {PARENTS_MAX} tasks: let some depend on a part each, and this one on those");
    Bad::new("after", reason)
}

/// The first words of a ring of `n` tasks.
fn in_line(mut words: Vec<String>, n: usize) -> String {
    if n > words.len() {
        words.push("...".into());
    }
    words.join(" -> ")
}

/// `path` begins and ends with the same task; each depends on the next.
pub(super) fn ring(path: &[i64]) -> Bad {
    let words = path.iter().take(NAMED_MAX).map(i64::to_string).collect();
    Bad::new("after", format!("depends on itself: {}", in_line(words, path.len())))
}

pub(super) fn walks_too_far() -> Bad {
    let reason = format!(
        "depends on a task with a higher id, and through it on more than {WALK_MAX} others: insert parents before their children"
    );
    Bad::new("after", reason)
}

pub(super) fn missing_group(group: u64) -> Bad {
    Bad::new("group", format!("group {group} is not in the table: make it with the tasks that it begins with"))
}

pub(super) fn cancelled_group(group: u64) -> Bad {
    let reason =
        format!("group {group} was cancelled and takes no more tasks: begin a new one, or requeue a task of it first");
    Bad::new("group", reason)
}

pub(super) fn last_has_twin(twin: i64) -> Bad {
    Bad::new(
        "unique_key",
        format!("the last task of a group must be new, and task {twin} has this key: choose another"),
    )
}

/// The name of a group as it is kept.
pub(super) fn group_name(group: &NewGroup) -> Option<&str> {
    group.name.as_deref().map(|name| clipped(name, GROUP_NAME_BYTES_MAX))
}

/// Whether a list of tasks to be says anything about other tasks.
pub(super) fn is_plain(tasks: &[NewTask], group: Option<&NewGroup>) -> bool {
    group.is_none() && tasks.iter().all(|task| task.after.is_empty() && task.group.is_none() && !task.join)
}

/// Judges what the tasks of one list say about each other, before any of them is stored. Gives the number of the task that is
/// at fault.
pub(super) fn judge_list(tasks: &[NewTask], group: Option<&NewGroup>, is_spawn: bool) -> Result<(), (usize, Bad)> {
    for (at, task) in tasks.iter().enumerate() {
        judge_one(task, at, tasks.len(), group.is_some(), is_spawn).map_err(|bad| (at, bad))?;
    }
    if let Some(last) = group.and_then(|group| group.last)
        && last as usize >= tasks.len()
    {
        let reason = format!("last {last} is no number of a task: there are {}, from 0", tasks.len());
        return Err((0, Bad::new("group", reason)));
    }
    Ok(())
}

fn judge_one(task: &NewTask, at: usize, n_tasks: usize, in_group: bool, is_spawn: bool) -> Result<(), Bad> {
    for after in &task.after {
        match after {
            After { task: Some(_), number: None, .. } => {}
            After { task: None, number: Some(number), .. } if *number as usize == at => {
                return Err(Bad::new("after", format!("depends on itself: number {number} -> {number}")));
            }
            After { task: None, number: Some(number), .. } if (*number as usize) < n_tasks => {}
            After { task: None, number: Some(number), .. } => {
                let reason = format!("depends on number {number}: there are {n_tasks} tasks, from 0");
                return Err(Bad::new("after", reason));
            }
            _ => {
                return Err(Bad::new(
                    "after",
                    "name each task by `task`, its id, or by `number`, and not by both".into(),
                ));
            }
        }
    }
    if task.after.len() > PARENTS_MAX {
        return Err(too_many_parents());
    }
    if in_group && (task.group.is_some() || task.join) {
        return Err(Bad::new(
            "group",
            "the tasks of a new group can be in no other: leave `group` and `join` out".into(),
        ));
    }
    if task.join && !is_spawn {
        return Err(Bad::new("join", "only a task that another spawns can join that one's group: name `group`".into()));
    }
    if task.join && task.group.is_some() {
        return Err(Bad::new("join", "`group` and `join` name two groups: leave one of them out".into()));
    }
    Ok(())
}

/// The numbers that a task of the list waits for, and whether it runs though they fail. Those of a group's last task are all
/// others.
pub(super) fn numbers_before(tasks: &[NewTask], group: Option<&NewGroup>, at: usize) -> Vec<(usize, bool)> {
    let named = tasks[at].after.iter().filter_map(|after| Some((after.number? as usize, after.anyway)));
    let mut before: Vec<(usize, bool)> = named.collect();
    if let Some(group) = group.filter(|group| group.last == u32::try_from(at).ok()) {
        before.extend((0..tasks.len()).filter(|other| *other != at).map(|other| (other, group.anyway)));
    }
    before
}

/// A ring among the tasks of a list, looked for once they are stored and before their edges are: only then it shows which of them were
/// there already, whose `after` counts for nothing, which are one with another of the list, and which have got an id that somebody has
/// named. `stored` is what each task of the list has become.
pub(super) fn ring_of_stored(
    tasks: &[NewTask],
    group: Option<&NewGroup>,
    stored: &[Stored],
) -> Result<(), (usize, Bad)> {
    let made = stored.iter().enumerate().filter(|(_, stored)| stored.new);
    let places: BTreeMap<_, usize> = made.map(|(at, stored)| (stored.task, at)).collect();
    let is_new = |at: &usize| stored[*at].new;
    let by_number = |at: usize| numbers_before(tasks, group, at).into_iter().map(|(number, _)| number);
    let by_id = |at: usize| tasks[at].after.iter().filter_map(|after| after.task);
    let before = |at: usize| {
        let named = by_number(at).map(|number| stored[number].task).chain(by_id(at));
        named.filter_map(|task| places.get(&task).copied()).collect()
    };
    let all = (0..tasks.len()).map(|at| if is_new(&at) { before(at) } else { Vec::new() });
    let Some(path) = ring_among(all.collect()) else { return Ok(()) };
    // As it was said: by a number, that of another task with the same key perhaps, or by an id.
    let said = |from: usize, to: usize| {
        let is_it = |task| places.get(&task) == Some(&to);
        let number = by_number(from).find(|number| is_it(stored[*number].task)).map(|number| number.to_string());
        number.or_else(|| by_id(from).find(|task| is_it(*task)).map(|task| format!("task {task}")))
    };
    let (mut words, mut is_one) = (vec![path[0].to_string()], false);
    for hop in path.windows(2).take(NAMED_MAX - 1) {
        let name = said(hop[0], hop[1]).expect("the ring is made of what was said");
        let is_other = name != hop[1].to_string();
        is_one |= is_other;
        words.push(if is_other { format!("{name} (is number {})", hop[1]) } else { name });
    }
    let hint = ": tasks of one list with the same kind and key are one task, so leave the key or the dependency out";
    let reason = format!("depends on itself: number {}{}", in_line(words, path.len()), if is_one { hint } else { "" });
    Err((path[0], Bad::new("after", reason)))
}

/// The numbers of a ring, the first of them again at the end; `before` are those that each waits for. Takes away whoever waits for
/// nobody that is left; who remains is in a ring, or behind one.
fn ring_among(mut before: Vec<Vec<usize>>) -> Option<Vec<usize>> {
    let mut children: Vec<Vec<usize>> = vec![Vec::new(); before.len()];
    for (at, numbers) in before.iter_mut().enumerate() {
        numbers.sort_unstable();
        numbers.dedup();
        for number in numbers.iter() {
            children[*number].push(at);
        }
    }
    let mut open: Vec<usize> = before.iter().map(Vec::len).collect();
    let mut free: Vec<usize> = (0..before.len()).filter(|at| open[*at] == 0).collect();
    while let Some(at) = free.pop() {
        for child in &children[at] {
            open[*child] -= 1;
            if open[*child] == 0 {
                free.push(*child);
            }
        }
    }
    // Whoever is left waits for one that is left, so that the walk comes to a task that it has met.
    let mut path = vec![(0..before.len()).find(|at| open[*at] > 0)?];
    loop {
        let at = *path.last().expect("it is never empty");
        let next = *before[at].iter().find(|number| open[**number] > 0).expect("it is left because of one");
        if let Some(met) = path.iter().position(|number| *number == next) {
            path.push(next);
            return Some(path.split_off(met));
        }
        path.push(next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use laneway_protocol::{Kind, TaskId};

    fn list(after: &[&[u32]]) -> Vec<NewTask> {
        let task = |numbers: &&[u32]| {
            let after = numbers.iter().map(|number| After { number: Some(*number), ..After::default() });
            NewTask { after: after.collect(), ..NewTask::new(Kind::new("k").expect("a name"), None) }
        };
        after.iter().map(task).collect()
    }

    /// What each waits for, the group, and which one is refused with which words.
    type Case<'a> = (&'a [&'a [u32]], Option<NewGroup>, Option<(usize, &'a str)>);

    #[test]
    fn a_list_may_be_in_any_order_but_a_ring() {
        // The numbers of a ring are named in order; what only waits behind it is not.
        let last = |last| NewGroup { last: Some(last), ..NewGroup::default() };
        let cases: [Case<'_>; 7] = [
            (&[&[1, 2], &[2], &[]], None, None),
            (&[&[], &[], &[]], Some(last(1)), None),
            (&[&[0]], None, Some((0, "depends on itself: number 0 -> 0"))),
            (&[&[1], &[2], &[3], &[1]], None, Some((1, "depends on itself: number 1 -> 2 -> 3 -> 1"))),
            (&[&[1], &[]], Some(last(1)), Some((0, "depends on itself: number 0 -> 1 -> 0"))),
            (&[&[2], &[]], None, Some((0, "depends on number 2: there are 2 tasks, from 0"))),
            (&[&[]], Some(last(1)), Some((0, "last 1 is no number of a task: there are 1, from 0"))),
        ];
        for (after, group, expected) in cases {
            let (tasks, group) = (list(after), group.as_ref());
            let judged =
                judge_list(&tasks, group, false).and_then(|()| ring_of_stored(&tasks, group, &stored(1..=tasks.len())));
            let judged = judged.err().map(|(at, bad)| (at, bad.reason));
            assert_eq!(judged, expected.map(|(at, reason)| (at, reason.to_owned())), "{after:?}");
        }
    }

    fn stored(ids: impl IntoIterator<Item = usize>) -> Vec<Stored> {
        let task = |id: usize| TaskId::new(id as u64).expect("an id");
        ids.into_iter().map(|id| Stored::new(task(id))).collect()
    }

    #[test]
    fn what_a_task_that_was_there_already_says_counts_for_nothing() {
        // The third of the list is the first; so what it waits for makes no ring, and what waits for it may.
        let one = |after: &[&[u32]]| {
            let mut ids = stored([7, 8, 7]);
            ids[2].new = false;
            ring_of_stored(&list(after), None, &ids).err().map(|(at, bad)| (at, bad.reason))
        };
        assert_eq!(one(&[&[], &[0], &[1]]), None);
        let (at, reason) = one(&[&[1], &[2], &[]]).expect("a ring");
        let says = "depends on itself: number 0 -> 1 -> 2 (is number 0): tasks of one list with the same kind and key are one task";
        assert!(at == 0 && reason.starts_with(says), "{reason}");
    }

    #[test]
    fn all_missing_parents_are_named_up_to_a_bound() {
        let says = |parents: &[i64]| missing_parents(parents).reason;
        let rest = "not in the table: insert parents before their children";
        assert_eq!(says(&[5, 5]), format!("depends on task 5, which is {rest}"));
        assert_eq!(says(&[7, 5]), format!("depends on tasks 5, 7, which are {rest}"));
        let many = says(&(1..=20).collect::<Vec<_>>());
        assert!(many.starts_with("depends on tasks 1, 2,") && many.contains(", 16 and 4 more, which are"), "{many}");
    }
}
