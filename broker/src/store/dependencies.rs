//! The bounds of what a task may wait for, and the words for what it may not. Shared by every store.

use std::collections::BTreeMap;

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
/// Ids of a ring that are named.
const NAMED_MAX: usize = 16;

pub(super) fn never_waits() -> Bad {
    let reason = "state is 'waiting' without dependencies, so it would wait for ever: insert its rows of task_dependencies \
                  in the same transaction, or insert no state";
    Bad::new("state", reason.into())
}

pub(super) fn missing_parent(parent: i64) -> Bad {
    Bad::new(
        "after",
        format!("depends on task {parent}, which is not in the table: insert parents before their children"),
    )
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
    ring_of_numbers(tasks, group)
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

/// A ring among the numbers of a list, as they were said.
fn ring_of_numbers(tasks: &[NewTask], group: Option<&NewGroup>) -> Result<(), (usize, Bad)> {
    let before =
        (0..tasks.len()).map(|at| numbers_before(tasks, group, at).into_iter().map(|(number, _)| number).collect());
    let Some(path) = ring_among(before.collect()) else { return Ok(()) };
    let words = path.iter().take(NAMED_MAX).map(usize::to_string).collect();
    Err((path[0], Bad::new("after", format!("depends on itself: number {}", in_line(words, path.len())))))
}

/// A ring that shows only once the list is stored, before its edges are: two tasks with one key have become one, or somebody has named
/// the id that a task of the list would get. `stored` is what each task of the list has become.
pub(super) fn ring_of_stored(
    tasks: &[NewTask],
    group: Option<&NewGroup>,
    stored: &[Stored],
) -> Result<(), (usize, Bad)> {
    let Some(first) = stored.iter().find(|stored| stored.new).map(|stored| stored.task) else { return Ok(()) };
    let names_new = |after: &After| after.task.is_some_and(|task| task >= first);
    if stored.iter().all(|stored| stored.new) && !tasks.iter().any(|task| task.after.iter().any(names_new)) {
        return Ok(());
    }
    let made = stored.iter().enumerate().filter(|(_, stored)| stored.new);
    let places: BTreeMap<_, usize> = made.map(|(at, stored)| (stored.task, at)).collect();
    // What a task waits for: the number or id that it named, and which task of the list that has become.
    let named_by = |at: usize| {
        let numbers = numbers_before(tasks, group, at).into_iter();
        let numbers = numbers.map(|(number, _)| (number.to_string(), stored[number].task));
        let ids = tasks[at].after.iter().filter_map(|after| after.task).map(|task| (format!("task {task}"), task));
        let all = numbers.chain(ids).filter_map(|(name, task)| Some((name, *places.get(&task)?)));
        if stored[at].new { all.collect() } else { Vec::new() }
    };
    let before = (0..tasks.len()).map(|at| named_by(at).into_iter().map(|(_, place)| place).collect());
    let Some(path) = ring_among(before.collect()) else { return Ok(()) };
    let mut words = vec![path[0].to_string()];
    for hop in path.windows(2).take(NAMED_MAX - 1) {
        let name = named_by(hop[0]).into_iter().find(|(_, place)| *place == hop[1]).map(|(name, _)| name);
        let name = name.expect("the ring is made of what was named");
        let is_other = name != hop[1].to_string();
        words.push(if is_other { format!("{name} (is number {})", hop[1]) } else { name });
    }
    let reason = format!(
        "depends on itself: number {}: tasks of one list with the same kind and key are one task, so leave the key or the dependency out",
        in_line(words, path.len())
    );
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
    use laneway_protocol::Kind;

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
            let judged = judge_list(&list(after), group.as_ref(), false);
            let judged = judged.err().map(|(at, bad)| (at, bad.reason));
            assert_eq!(judged, expected.map(|(at, reason)| (at, reason.to_owned())), "{after:?}");
        }
    }
}
