//! Pure choice: which task a ready slot gets, which slot a due task goes to.
//!
//! Slots with the same lanes and kinds form a class. Each class keeps the heads of its queues in one ordered set, most
//! urgent lane first, then by the turns of fair keys, then first due; so a choice costs a logarithm of the queues, and
//! never anything that grows with tasks or slots. A queue that is empty here but not in the table puts a barrier into
//! its lane: nothing of a lower lane passes it.

mod shares;
mod turns;

use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::ops::Bound;

use laneway_protocol::{FairKey, Kind, LaneName, TaskId};

use crate::event::{Loaded, QueueKey, QueuedTask};
use crate::fair::{Fair, KeyIndex, Turn};
use crate::gate::Place;
use crate::id_map::IdMap;
use crate::queue::{Queue, Window};
use crate::settings::Settings;
use crate::time::UnixMillis;
use crate::worker::SlotId;

/// A lane by its place in the settings, 0 is the most urgent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LaneRank(u16);

/// A kind by the order in which workers first named it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct KindIndex(u32);

/// Row `kind`, column `lane` of the table of queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct QueueIndex(usize);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ClassId(u64);

/// What a slot can run: lanes and kinds, each sorted and without repeats.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Ability {
    pub(crate) lanes: Vec<LaneRank>,
    pub(crate) kinds: Vec<KindIndex>,
}

/// The first task of a queue, or its barrier. The order of the fields is the order of dispatch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Head {
    lane: LaneRank,
    /// A barrier stands behind the tasks of its own lane and before every lower lane.
    pub(crate) barrier: bool,
    /// That of its fair key; the same for all in a lane without keys.
    turn: Turn,
    due: UnixMillis,
    /// 0 for a barrier.
    id: u64,
    queue: QueueIndex,
    pub(crate) suspect: bool,
}

/// Slots that wait, the longest idle first: of each class the next one only.
pub(crate) type IdleLine = BinaryHeap<Reverse<Idle>>;

/// A slot's place among the idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Idle {
    /// Since when, by number.
    pub(crate) since: u64,
    pub(crate) class: ClassId,
    pub(crate) slot: SlotId,
}

impl LaneRank {
    pub(crate) fn new(rank: usize) -> Self {
        Self(u16::try_from(rank).expect("lanes are few"))
    }

    pub(crate) fn index(self) -> usize {
        self.0.into()
    }

    fn bit(self) -> u64 {
        1 << self.0
    }
}

/// A task that was taken out, and whether it was the last at hand of its key though the table has more.
#[derive(Debug)]
pub(crate) struct Removed {
    pub(crate) queue: QueueIndex,
    pub(crate) fair_key: Option<FairKey>,
    pub(crate) ran_dry: bool,
}

/// Where a task stands.
#[derive(Debug, Clone, Copy)]
struct Spot {
    queue: QueueIndex,
    due: UnixMillis,
    key: KeyIndex,
}

#[derive(Debug)]
struct Class {
    ability: Ability,
    slots: usize,
    heads: BTreeSet<Head>,
    /// Parked slots, longest idle first.
    ready: BTreeMap<u64, SlotId>,
}

#[derive(Debug)]
pub(crate) struct Dispatch {
    lanes: Vec<LaneName>,
    paused: Vec<bool>,
    /// Lanes and kinds of which nothing may start now, for a cap, a rate or a pause of the kind.
    closed_lanes: Vec<bool>,
    closed_kinds: Vec<bool>,
    /// Hand-outs of each lane since the start.
    handed_out: Vec<u64>,
    /// Lanes with a share, in per cent, most urgent first.
    shares: Vec<(LaneRank, u32)>,
    /// By rank, what each lane with a share is owed by the slots that serve it, in hundredths of a hand-out.
    owed: Vec<u32>,
    kinds: Vec<Kind>,
    kind_index: HashMap<Kind, KindIndex>,
    queues: Vec<Queue>,
    /// The heads of each queue as they stand in its classes: task, suspect, barrier.
    heads: Vec<[Option<Head>; 3]>,
    classes: BTreeMap<ClassId, Class>,
    class_of: HashMap<Ability, ClassId>,
    next_class: u64,
    idle_n: u64,
    /// Where each task that is read ahead stands.
    place: IdMap<TaskId, Spot>,
    fair: Fair,
    window: Window,
    kinds_max: usize,
}

impl Head {
    /// Where the heads of a lane begin.
    fn first_of(lane: LaneRank) -> Self {
        Self { lane, barrier: false, turn: 0, due: UnixMillis(i64::MIN), id: 0, queue: QueueIndex(0), suspect: false }
    }
}

impl Dispatch {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            lanes: settings.lanes.clone(),
            paused: vec![false; settings.lanes.len()],
            closed_lanes: vec![false; settings.lanes.len()],
            closed_kinds: Vec::new(),
            handed_out: vec![0; settings.lanes.len()],
            shares: Vec::new(),
            owed: vec![0; settings.lanes.len()],
            kinds: Vec::new(),
            kind_index: HashMap::new(),
            queues: Vec::new(),
            heads: Vec::new(),
            classes: BTreeMap::new(),
            class_of: HashMap::new(),
            next_class: 0,
            idle_n: 0,
            place: IdMap::default(),
            fair: Fair::new(settings.lanes.len()),
            window: Window {
                rows_min: settings.window_rows_min,
                rows_max: settings.window_rows_max,
                bytes_max: settings.window_bytes_max,
            },
            kinds_max: settings.kinds_max,
        }
    }

    /// `None` when the broker knows as many kinds as it may.
    pub(crate) fn learn_kind(&mut self, kind: &Kind) -> Option<KindIndex> {
        if let Some(&index) = self.kind_index.get(kind) {
            return Some(index);
        }
        if self.kinds.len() >= self.kinds_max {
            return None;
        }
        let index = KindIndex(u32::try_from(self.kinds.len()).expect("kinds_max fits 32 bits"));
        self.kinds.push(kind.clone());
        self.closed_kinds.push(false);
        self.kind_index.insert(kind.clone(), index);
        for _ in 0..self.lanes.len() {
            self.queues.push(Queue::default());
            self.heads.push([None; 3]);
        }
        Some(index)
    }

    /// A slot with this ability joins, taking up to `max` tasks at once. Gives its class, whose queues may want rows now.
    pub(crate) fn join(&mut self, ability: &Ability, max: usize) -> ClassId {
        let class = match self.class_of.get(ability) {
            Some(&class) => class,
            None => self.new_class(ability.clone()),
        };
        self.classes.get_mut(&class).expect("just looked up").slots += 1;
        for queue in self.queues_of(ability) {
            self.queues[queue.0].add_capacity(max);
        }
        class
    }

    /// The reverse of `join`. Gives the rows that nobody can run any more, with their queues.
    pub(crate) fn leave(&mut self, class: ClassId, max: usize) -> Vec<(QueueIndex, Vec<TaskId>)> {
        let entry = self.classes.get_mut(&class).expect("a slot leaves the class it joined");
        entry.slots -= 1;
        let last = entry.slots == 0;
        let ability = entry.ability.clone();
        let mut unserved = Vec::new();
        for queue in self.queues_of(&ability) {
            self.queues[queue.0].remove_capacity(max);
            if last {
                self.queues[queue.0].classes.retain(|&other| other != class);
                if self.queues[queue.0].classes.is_empty() {
                    let rows = self.clear(queue);
                    self.heads[queue.0] = [None; 3];
                    unserved.push((queue, rows));
                }
            }
        }
        if last {
            self.classes.remove(&class);
            self.class_of.remove(&ability);
        }
        unserved
    }

    /// A slot waits. Gives its place in the line of the idle.
    pub(crate) fn park(&mut self, class: ClassId, slot: SlotId) -> u64 {
        self.idle_n += 1;
        self.classes.get_mut(&class).expect("a parked slot has a class").ready.insert(self.idle_n, slot);
        self.idle_n
    }

    pub(crate) fn unpark(&mut self, idle: Idle) {
        self.classes.get_mut(&idle.class).expect("a parked slot has a class").ready.remove(&idle.since);
    }

    /// A slot of this class will take up to `more` tasks more at once; its queues may want rows now.
    pub(crate) fn grow(&mut self, class: ClassId, more: usize) {
        for queue in self.queues_of_class(class) {
            self.queues[queue.0].add_capacity(more);
        }
    }

    /// Takes in what the store read ahead, `rows` rows of which some may have been left out. Gives the queue and whether
    /// lower lanes had to wait for it until now; `None` with the rows when nobody serves it any more.
    pub(crate) fn loaded(&mut self, loaded: Loaded, rows: usize) -> Result<(QueueIndex, bool), Vec<TaskId>> {
        let Some(queue) = self.served(&loaded.key) else {
            return Err(loaded.tasks.iter().map(|task| task.id).collect());
        };
        self.queues[queue.0].loaded(rows, loaded.more);
        for task in loaded.tasks {
            self.push(queue, task);
        }
        for key in loaded.left {
            let key = self.fair.learn(key.as_ref());
            let rows = &mut self.queues[queue.0];
            rows.set_left(key, rows.has_task(key));
            self.fair.let_go(key);
        }
        let was_barrier = self.is_barrier(queue);
        self.refresh(queue);
        Ok((queue, was_barrier && !self.is_barrier(queue)))
    }

    /// Takes the task that `head` stands for.
    pub(crate) fn take(&mut self, head: Head) -> (QueueIndex, QueuedTask) {
        let id = TaskId::new(head.id).expect("a head that is no barrier has a task");
        let Spot { queue, due, key } = self.place.remove(&id).expect("a head stands for a task of its queue");
        let task = self.queues[queue.0].take(due, id, key).expect("a task stands where it is said to");
        let next = self.fair.serve(head.lane, key);
        self.took(queue, key);
        if let Some(turn) = next {
            self.move_turn(head.lane, key, turn);
        }
        self.refresh(queue);
        (queue, task)
    }

    /// The task that `head` stood for is handed out.
    pub(crate) fn count_hand_out(&mut self, head: Head) {
        self.handed_out[usize::from(head.lane.0)] += 1;
    }

    pub(crate) fn handed_out(&self, lane: LaneRank) -> u64 {
        self.handed_out[usize::from(lane.0)]
    }

    /// Takes a task out wherever it stands: it ended or went elsewhere.
    pub(crate) fn remove(&mut self, id: TaskId) -> Option<Removed> {
        let Spot { queue, due, key } = self.place.remove(&id)?;
        let task = self.queues[queue.0].take(due, id, key).expect("a task stands where it is said to");
        let ran_dry = self.queues[queue.0].ran_dry(key);
        self.took(queue, key);
        self.refresh(queue);
        Some(Removed { queue, fair_key: task.fair_key, ran_dry })
    }

    /// Rows to ask the store for, if it is time.
    pub(crate) fn next_demand(&mut self, queue: QueueIndex) -> Option<usize> {
        let rows = self.queues[queue.0].next_demand(self.window)?;
        self.refresh(queue);
        Some(rows)
    }

    pub(crate) fn pause(&mut self, lane: LaneRank, paused: bool) {
        self.paused[usize::from(lane.0)] = paused;
        for kind in 0..self.kinds.len() {
            self.refresh(QueueIndex(kind * self.lanes.len() + usize::from(lane.0)));
        }
    }

    /// Closes or opens a kind, a lane or a fair key. Whether that is a change. A kind goes by its heads, of which it has one for each
    /// lane; a lane may have thousands, so it is passed over when a slot chooses.
    pub(crate) fn close(&mut self, place: Place, closed: bool) -> bool {
        let flag = match place {
            Place::Kind(kind) => &mut self.closed_kinds[kind.0 as usize],
            Place::Lane(lane) => &mut self.closed_lanes[usize::from(lane.0)],
            Place::Key(key) => return self.close_key(key, closed),
        };
        if std::mem::replace(flag, closed) == closed {
            return false;
        }
        if let Place::Kind(kind) = place {
            for lane in self.all_lanes() {
                self.refresh(self.at(lane, kind));
            }
        }
        true
    }

    pub(crate) fn closed_places(&self) -> impl Iterator<Item = Place> {
        let kinds = self.closed_kinds.iter().zip(0..).filter(|(closed, _)| **closed);
        let lanes = self.closed_lanes.iter().zip(0..).filter(|(closed, _)| **closed);
        let keys = self.fair.closed().map(Place::Key);
        kinds.map(|(_, n)| Place::Kind(KindIndex(n))).chain(lanes.map(|(_, n)| Place::Lane(LaneRank(n)))).chain(keys)
    }

    /// Heads that a slot of this class may take, in order, ending before the first barrier.
    pub(crate) fn choices(&self, class: ClassId) -> impl Iterator<Item = Head> {
        let heads = &self.classes[&class].heads;
        let mut rest = heads.range(..);
        std::iter::from_fn(move || {
            loop {
                let &head = rest.next()?;
                if !self.is_closed(head.lane) {
                    return (!head.barrier).then_some(head);
                }
                rest = heads.range(Head::first_of(LaneRank(head.lane.0 + 1))..);
            }
        })
    }

    fn push(&mut self, queue: QueueIndex, task: QueuedTask) {
        let Entry::Vacant(place) = self.place.entry(task.id) else { return };
        let lane = LaneRank::new(queue.0 % self.lanes.len());
        let rows = &mut self.queues[queue.0];
        if task.fair_key.is_none() {
            place.insert(Spot { queue, due: task.due, key: KeyIndex::NONE });
            self.fair.plain_arrives(lane);
            rows.set_left(KeyIndex::NONE, false);
            return rows.push(task, KeyIndex::NONE, None);
        }
        let key = self.fair.learn(task.fair_key.as_ref());
        place.insert(Spot { queue, due: task.due, key });
        rows.set_left(key, false);
        // At hand elsewhere as well, its turn is what it is.
        let turn = if rows.has(key) { self.fair.turn(lane, key) } else { self.fair.arrives(lane, key, queue) };
        rows.push(task, key, (!self.fair.is_closed(key)).then_some(turn));
    }

    /// A task of a key has left a queue.
    fn took(&mut self, queue: QueueIndex, key: KeyIndex) {
        let lane = self.lane_of(queue);
        if key == KeyIndex::NONE {
            self.fair.plain_leaves(lane, 1);
        } else if !self.queues[queue.0].has(key) {
            self.fair.leaves(lane, key, queue);
        }
    }

    /// Tasks were taken out of a queue.
    fn gone(&mut self, queue: QueueIndex, gone: Vec<(KeyIndex, TaskId)>) -> Vec<TaskId> {
        if gone.is_empty() {
            return Vec::new();
        }
        let n_plain = gone.iter().filter(|(key, _)| *key == KeyIndex::NONE).count();
        self.fair.plain_leaves(self.lane_of(queue), n_plain);
        let keys: BTreeSet<KeyIndex> = gone.iter().map(|(key, _)| *key).filter(|key| *key != KeyIndex::NONE).collect();
        for key in keys.into_iter().filter(|&key| !self.queues[queue.0].has(key)).collect::<Vec<_>>() {
            self.fair.leaves(self.lane_of(queue), key, queue);
        }
        self.refresh(queue);
        let ids: Vec<TaskId> = gone.into_iter().map(|(_, id)| id).collect();
        for id in &ids {
            self.place.remove(id);
        }
        ids
    }

    /// Takes all that was read ahead of a queue out.
    fn clear(&mut self, queue: QueueIndex) -> Vec<TaskId> {
        let lane = self.lane_of(queue);
        self.fair.plain_leaves(lane, self.queues[queue.0].n_plain());
        for key in self.queues[queue.0].keys() {
            self.fair.leaves(lane, key, queue);
        }
        let rows = self.queues[queue.0].clear();
        for id in &rows {
            self.place.remove(id);
        }
        rows
    }

    fn lane_of(&self, queue: QueueIndex) -> LaneRank {
        LaneRank(u16::try_from(queue.0 % self.lanes.len()).expect("lanes are few"))
    }

    fn is_closed(&self, lane: LaneRank) -> bool {
        self.closed_lanes[usize::from(lane.0)]
    }

    /// Forgets what was read ahead of a queue that somebody serves, for its rows are others now. Gives their ids; the
    /// queue is to be read anew.
    pub(crate) fn reread(&mut self, key: &QueueKey) -> Option<(QueueIndex, Vec<TaskId>)> {
        let queue = self.served(key)?;
        let rows = self.clear(queue);
        self.queues[queue.0].open();
        self.refresh(queue);
        Some((queue, rows))
    }

    /// The slots that wait and can run what stands in `queue`, or all that wait.
    pub(crate) fn idle_line(&self, queue: Option<QueueIndex>) -> IdleLine {
        let next = |class: ClassId| self.next_idle(class, 0).map(Reverse);
        match queue {
            Some(queue) => self.queues[queue.0].classes.iter().copied().filter_map(next).collect(),
            None => self.classes.keys().copied().filter_map(next).collect(),
        }
    }

    /// The slots that wait and can run tasks of this kind.
    pub(crate) fn idle_line_of_kind(&self, kind: KindIndex) -> IdleLine {
        self.idle_line_of(self.all_lanes().into_iter().map(|lane| self.at(lane, kind)))
    }

    fn idle_line_of(&self, queues: impl IntoIterator<Item = QueueIndex>) -> IdleLine {
        let classes: BTreeSet<ClassId> =
            queues.into_iter().flat_map(|queue| self.queues[queue.0].classes.iter().copied()).collect();
        classes.into_iter().filter_map(|class| self.next_idle(class, 0).map(Reverse)).collect()
    }

    /// The longest idle slot of a class behind the one that is idle `since`.
    pub(crate) fn next_idle(&self, class: ClassId, since: u64) -> Option<Idle> {
        let behind = (Bound::Excluded(since), Bound::Unbounded);
        let (&since, &slot) = self.classes[&class].ready.range(behind).next()?;
        Some(Idle { since, class, slot })
    }

    /// Every slot that waits, the longest idle first.
    pub(crate) fn idle_slots(&self) -> Vec<SlotId> {
        let mut idle: Vec<(u64, SlotId)> =
            self.classes.values().flat_map(|class| class.ready.iter().map(|(&since, &slot)| (since, slot))).collect();
        idle.sort_unstable();
        idle.into_iter().map(|(_, slot)| slot).collect()
    }

    /// Whether a slot stands in the line of its class at this place.
    pub(crate) fn is_idle(&self, idle: Idle) -> bool {
        self.classes[&idle.class].ready.get(&idle.since) == Some(&idle.slot)
    }

    /// Whether a task is at hand in `queue` that may start.
    pub(crate) fn has_task(&self, queue: QueueIndex) -> bool {
        let [task, suspect, _] = self.heads[queue.0];
        task.or(suspect).is_some_and(|head| !self.is_closed(head.lane))
    }

    pub(crate) fn queues_of_class(&self, class: ClassId) -> Vec<QueueIndex> {
        self.queues_of(&self.classes[&class].ability).collect()
    }

    pub(crate) fn key(&self, queue: QueueIndex) -> QueueKey {
        QueueKey {
            lane: self.lanes[queue.0 % self.lanes.len()].clone(),
            kind: self.kinds[queue.0 / self.lanes.len()].clone(),
        }
    }

    pub(crate) fn lane(&self, name: &LaneName) -> Option<LaneRank> {
        let rank = self.lanes.iter().position(|lane| lane == name)?;
        Some(LaneRank(u16::try_from(rank).expect("lanes are few")))
    }

    pub(crate) fn lanes(&self) -> &[LaneName] {
        &self.lanes
    }

    pub(crate) fn all_lanes(&self) -> Vec<LaneRank> {
        (0..self.lanes.len()).map(|rank| LaneRank(u16::try_from(rank).expect("lanes are few"))).collect()
    }

    pub(crate) fn is_paused(&self, lane: LaneRank) -> bool {
        self.paused[usize::from(lane.0)]
    }

    pub(crate) fn kind_name(&self, kind: KindIndex) -> &Kind {
        &self.kinds[kind.0 as usize]
    }

    pub(crate) fn kind_of(&self, kind: &Kind) -> Option<KindIndex> {
        self.kind_index.get(kind).copied()
    }

    pub(crate) fn lane_name(&self, lane: LaneRank) -> &LaneName {
        &self.lanes[usize::from(lane.0)]
    }

    pub(crate) fn ability(&self, class: ClassId) -> &Ability {
        &self.classes[&class].ability
    }

    /// Parked slots that serve a lane.
    pub(crate) fn ready_in_lane(&self, lane: LaneRank) -> usize {
        self.classes.values().filter(|class| class.ability.lanes.contains(&lane)).map(|class| class.ready.len()).sum()
    }

    pub(crate) fn ready(&self) -> usize {
        self.classes.values().map(|class| class.ready.len()).sum()
    }

    /// Whether any slot can run this lane and kind.
    pub(crate) fn is_served(&self, lane: &LaneName, kind: &Kind) -> bool {
        let key = QueueKey { lane: lane.clone(), kind: kind.clone() };
        self.queue(&key).is_some_and(|queue| !self.queues[queue.0].classes.is_empty())
    }

    /// Tasks of a lane that are read ahead.
    pub(crate) fn at_hand(&self, lane: LaneRank) -> usize {
        self.queues.iter().skip(lane.index()).step_by(self.lanes.len()).map(Queue::len).sum()
    }

    pub(crate) fn is_read_ahead(&self, id: TaskId) -> bool {
        self.place.contains_key(&id)
    }

    pub(crate) fn check(&self) {
        let mut n_plain = vec![0; self.lanes.len()];
        let mut at_hand = BTreeSet::new();
        for queue in (0..self.queues.len()).map(QueueIndex) {
            let lane = self.lane_of(queue);
            n_plain[lane.index()] += self.queues[queue.0].n_plain();
            at_hand.extend(self.queues[queue.0].keys().into_iter().map(|key| (lane, key, queue)));
            let turn_of = |key| (!self.fair.is_closed(key)).then(|| self.fair.turn(lane, key));
            self.queues[queue.0].check(self.window, turn_of);
            assert_eq!(self.heads[queue.0], self.heads_of(queue), "heads of {:?}", self.key(queue));
            for class in &self.queues[queue.0].classes {
                for head in self.heads[queue.0].iter().flatten() {
                    assert!(self.classes[class].heads.contains(head), "class {class:?} misses {head:?}");
                }
            }
            for id in self.queues[queue.0].ids() {
                assert_eq!(self.place.get(&id).map(|spot| spot.queue), Some(queue), "place of task {id}");
            }
        }
        self.fair.check(&n_plain, &at_hand);
        let read_ahead: usize = self.queues.iter().map(Queue::len).sum();
        assert_eq!(self.place.len(), read_ahead, "places and tasks read ahead");
        self.check_shares();
        for (id, class) in &self.classes {
            assert!(class.slots >= class.ready.len(), "class {id:?} has more ready slots than slots");
        }
    }

    fn new_class(&mut self, ability: Ability) -> ClassId {
        let class = ClassId(self.next_class);
        self.next_class += 1;
        let entry = Class { ability: ability.clone(), slots: 0, heads: BTreeSet::new(), ready: BTreeMap::new() };
        self.classes.insert(class, entry);
        for queue in self.queues_of(&ability) {
            let rows = &mut self.queues[queue.0];
            rows.classes.push(class);
            if rows.classes.len() == 1 {
                rows.open();
                self.refresh(queue);
            } else {
                let heads = &mut self.classes.get_mut(&class).expect("just inserted").heads;
                heads.extend(self.heads[queue.0].iter().flatten());
            }
        }
        self.class_of.insert(ability, class);
        class
    }

    /// Brings the heads of a queue up to date in every class that serves it.
    fn refresh(&mut self, queue: QueueIndex) {
        let now = self.heads_of(queue);
        let before = std::mem::replace(&mut self.heads[queue.0], now);
        for (old, new) in before.into_iter().zip(now) {
            if old == new {
                continue;
            }
            for class in &self.queues[queue.0].classes {
                let heads = &mut self.classes.get_mut(class).expect("a queue's classes exist").heads;
                if let Some(old) = old {
                    heads.remove(&old);
                }
                heads.extend(new);
            }
        }
    }

    fn heads_of(&self, queue: QueueIndex) -> [Option<Head>; 3] {
        let lane = self.lane_of(queue);
        let rows = &self.queues[queue.0];
        if self.is_paused(lane) || self.closed_kinds[queue.0 / self.lanes.len()] || rows.classes.is_empty() {
            return [None; 3];
        }
        let head = |suspect| {
            move |(turn, due, id): (_, _, TaskId)| Head {
                lane,
                barrier: false,
                turn,
                due,
                id: id.value(),
                queue,
                suspect,
            }
        };
        let barrier = Head { lane, barrier: true, turn: 0, due: UnixMillis::default(), id: 0, queue, suspect: false };
        let plain = self.fair.plain_turn(lane);
        [
            rows.first(plain).map(head(false)),
            rows.first_suspect(plain).map(head(true)),
            rows.refill_pending(self.window).then_some(barrier),
        ]
    }

    fn is_barrier(&self, queue: QueueIndex) -> bool {
        let [_, _, barrier] = self.heads[queue.0];
        barrier.is_some()
    }

    /// A queue that somebody serves.
    fn served(&self, key: &QueueKey) -> Option<QueueIndex> {
        self.queue(key).filter(|&queue| !self.queues[queue.0].classes.is_empty())
    }

    pub(crate) fn queue(&self, key: &QueueKey) -> Option<QueueIndex> {
        let (lane, kind) = (self.lane(&key.lane)?, self.kind_of(&key.kind)?);
        Some(self.at(lane, kind))
    }

    fn at(&self, lane: LaneRank, kind: KindIndex) -> QueueIndex {
        QueueIndex(kind.0 as usize * self.lanes.len() + usize::from(lane.0))
    }

    fn queues_of(&self, ability: &Ability) -> impl Iterator<Item = QueueIndex> + use<> {
        let lanes = self.lanes.len();
        let ability = ability.clone();
        ability.kinds.into_iter().flat_map(move |kind| {
            let ranks = ability.lanes.clone();
            ranks.into_iter().map(move |lane| QueueIndex(kind.0 as usize * lanes + usize::from(lane.0)))
        })
    }
}
