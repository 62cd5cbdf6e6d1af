//! Which queues the scheduler reads from, and when: the router's demands, and what is known of rows that are due later.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::Arc;

use laneway_core::{FairRules, Loaded, QueueKey, UnixMillis};
use laneway_protocol::{FairKey, LaneName};

/// Rows for later of queues that are read by turns, in the order of their times. More are noticed with the next refill.
const APPEAR_LATER_MAX: usize = 65_536;

#[derive(Debug)]
pub(super) struct Agenda {
    lanes: Vec<LaneName>,
    /// In an order, for all of them may be marked at once: the same run reads the same queues first.
    demands: BTreeMap<QueueKey, Demand>,
    /// How many of them have not been answered.
    n_fresh: usize,
    /// To be read from in the next turns, each once, by lane: a lower one must not be read first when a turn is full.
    due: Vec<VecDeque<QueueKey>>,
    is_due: HashSet<QueueKey>,
    later: BTreeSet<(UnixMillis, QueueKey)>,
    later_of: BTreeMap<QueueKey, UnixMillis>,
    appear_later: BTreeSet<(UnixMillis, QueueKey, Option<FairKey>)>,
    /// Those whose time has come, and those of them that the open look tells.
    appeared: BTreeSet<(QueueKey, Option<FairKey>)>,
    telling: BTreeSet<(QueueKey, Option<FairKey>)>,
}

/// Rows that the router wants to read ahead.
#[derive(Debug, Clone)]
pub(super) struct Demand {
    pub(super) rows: usize,
    pub(super) fair: Arc<FairRules>,
    /// It has not been answered, and must be, even with nothing.
    pub(super) fresh: bool,
}

impl Agenda {
    /// `lanes` are those of the settings, most urgent first.
    pub(super) fn new(lanes: Vec<LaneName>) -> Self {
        Self {
            due: vec![VecDeque::new(); lanes.len()],
            lanes,
            demands: BTreeMap::new(),
            n_fresh: 0,
            is_due: HashSet::new(),
            later: BTreeSet::new(),
            later_of: BTreeMap::new(),
            appear_later: BTreeSet::new(),
            appeared: BTreeSet::new(),
            telling: BTreeSet::new(),
        }
    }

    /// Replaces the demand for a queue; 0 rows withdraws it.
    pub(super) fn demand(&mut self, key: QueueKey, rows: usize, fair: Arc<FairRules>) {
        let before = if rows == 0 {
            self.demands.remove(&key)
        } else {
            self.n_fresh += 1;
            let before = self.demands.insert(key.clone(), Demand { rows, fair, fresh: true });
            self.mark(key);
            before
        };
        self.n_fresh -= usize::from(before.is_some_and(|before| before.fresh));
    }

    /// A queue may have new work; it is read from if anybody wants its rows.
    pub(super) fn mark(&mut self, key: QueueKey) {
        if self.demands.contains_key(&key) && self.is_due.insert(key.clone()) {
            self.push(key);
        }
    }

    pub(super) fn mark_all(&mut self) {
        let keys: Vec<QueueKey> = self.demands.keys().filter(|key| !self.is_due.contains(*key)).cloned().collect();
        for key in keys {
            self.is_due.insert(key.clone());
            self.push(key);
        }
    }

    /// A queue has work for later.
    pub(super) fn mark_at(&mut self, key: QueueKey, at: UnixMillis) {
        if !self.demands.contains_key(&key) || self.later_of.get(&key).is_some_and(|&known| known <= at) {
            return;
        }
        if let Some(known) = self.later_of.insert(key.clone(), at) {
            self.later.remove(&(known, key.clone()));
        }
        self.later.insert((at, key));
    }

    /// Marks what the wall clock has brought.
    pub(super) fn mark_until(&mut self, now: UnixMillis) {
        while self.later.first().is_some_and(|(at, _)| *at <= now) {
            let (_, key) = self.later.pop_first().expect("just looked at");
            self.later_of.remove(&key);
            self.mark(key);
        }
        while self.appear_later.first().is_some_and(|(at, ..)| *at <= now) {
            let (_, key, fair_key) = self.appear_later.pop_first().expect("just looked at");
            self.appeared.insert((key, fair_key));
        }
    }

    /// Queues that are read by turns have rows of these keys for later.
    pub(super) fn appear_at(&mut self, rows: impl IntoIterator<Item = (UnixMillis, QueueKey, Option<FairKey>)>) {
        self.appear_later.extend(rows);
        while self.appear_later.len() > APPEAR_LATER_MAX {
            self.appear_later.pop_last();
        }
    }

    /// Rows whose time has come; given back when the look fails.
    pub(super) fn take_appeared(&mut self) -> BTreeSet<(QueueKey, Option<FairKey>)> {
        self.telling.append(&mut self.appeared);
        self.telling.clone()
    }

    pub(super) fn put_back_appeared(&mut self) {
        self.appeared.append(&mut self.telling);
    }

    pub(super) fn appeared_told(&mut self) {
        self.telling.clear();
    }

    /// The next queue to read from, with what is wanted of it.
    pub(super) fn pop(&mut self) -> Option<(QueueKey, Demand)> {
        loop {
            let key = self.due.iter_mut().find_map(VecDeque::pop_front)?;
            self.is_due.remove(&key);
            if let Some(demand) = self.demands.get(&key) {
                let demand = demand.clone();
                return Some((key, demand));
            }
        }
    }

    /// What is wanted of a queue.
    pub(super) fn demanded(&self, key: &QueueKey) -> Option<Demand> {
        self.demands.get(key).cloned()
    }

    /// A load that says more ends its demand, as does one that fills it; otherwise the rest of it stays open.
    pub(super) fn answered(&mut self, loaded: &Loaded) {
        let Some(demand) = self.demands.get_mut(&loaded.key) else { return };
        demand.rows = demand.rows.saturating_sub(loaded.tasks.len());
        self.n_fresh -= usize::from(std::mem::take(&mut demand.fresh));
        if loaded.more || demand.rows == 0 {
            self.demands.remove(&loaded.key);
        }
    }

    /// Whether nobody wants rows but of queues that had none left when they were last read from.
    pub(super) fn is_dry(&self) -> bool {
        self.n_fresh == 0
    }

    pub(super) fn is_busy(&self) -> bool {
        !self.is_due.is_empty() || !self.appeared.is_empty()
    }

    /// When the next row is due that is not due yet.
    pub(super) fn next_at(&self) -> Option<UnixMillis> {
        let later = self.later.first().map(|(at, _)| *at);
        later.into_iter().chain(self.appear_later.first().map(|(at, ..)| *at)).min()
    }

    fn push(&mut self, key: QueueKey) {
        // The router only demands what it knows; anything else would come last.
        let rank = self.lanes.iter().position(|lane| *lane == key.lane).unwrap_or(self.lanes.len() - 1);
        self.due[rank].push_back(key);
    }
}

#[cfg(test)]
mod tests {
    use laneway_protocol::Kind;

    use super::*;

    fn agenda() -> Agenda {
        Agenda::new(["high", "normal"].map(|lane| LaneName::new(lane).unwrap()).into())
    }

    fn key(kind: &str) -> QueueKey {
        QueueKey { lane: LaneName::new("normal").unwrap(), kind: Kind::new(kind).unwrap() }
    }

    /// However often it is marked, a queue is read once, and not at all when nobody wants its rows.
    #[test]
    fn a_marked_queue_is_read_once() {
        let mut agenda = agenda();
        agenda.mark(key("unwanted"));
        agenda.demand(key("a"), 5, Arc::default());
        agenda.mark(key("a"));
        agenda.mark_all();
        assert_eq!(agenda.pop().map(|(key, demand)| (key, demand.rows)), Some((key("a"), 5)));
        assert!(agenda.pop().is_none());
    }

    /// Whatever was marked first, a higher lane is read first.
    #[test]
    fn higher_lanes_are_read_first() {
        let mut agenda = agenda();
        let high = QueueKey { lane: LaneName::new("high").unwrap(), kind: Kind::new("b").unwrap() };
        agenda.demand(key("a"), 1, Arc::default());
        agenda.demand(high.clone(), 1, Arc::default());
        assert_eq!(agenda.pop().map(|(key, _)| key), Some(high));
        assert_eq!(agenda.pop().map(|(key, _)| key), Some(key("a")));
    }

    /// A demand that is not filled stays open, so that rows that turn up later are read for it.
    #[test]
    fn an_open_demand_is_answered_again() {
        let mut agenda = agenda();
        agenda.demand(key("a"), 5, Arc::default());
        agenda.pop();
        agenda.answered(&Loaded {
            key: key("a"),
            tasks: Vec::new(),
            more: false,
            left: Vec::new(),
            passed: Vec::new(),
        });
        agenda.mark(key("a"));
        let (_, demand) = agenda.pop().unwrap();
        assert!(!demand.fresh && demand.rows == 5 && agenda.is_dry());
        agenda.answered(&Loaded { key: key("a"), tasks: Vec::new(), more: true, left: Vec::new(), passed: Vec::new() });
        agenda.mark(key("a"));
        assert!(agenda.pop().is_none(), "a load that says more ends its demand");
    }

    /// However demands are replaced, answered and withdrawn, those without an answer are counted.
    #[test]
    fn a_demand_is_fresh_until_its_first_answer() {
        let mut agenda = agenda();
        let answer =
            |kind, more| Loaded { key: key(kind), tasks: Vec::new(), more, left: Vec::new(), passed: Vec::new() };
        assert!(agenda.is_dry());
        agenda.demand(key("a"), 5, Arc::default());
        agenda.demand(key("a"), 6, Arc::default());
        agenda.demand(key("b"), 5, Arc::default());
        agenda.answered(&answer("a", false));
        assert!(!agenda.is_dry());
        agenda.demand(key("b"), 0, Arc::default());
        assert!(agenda.is_dry());
        agenda.demand(key("a"), 5, Arc::default());
        assert!(!agenda.is_dry());
        agenda.answered(&answer("a", true));
        agenda.answered(&answer("a", true));
        assert!(agenda.is_dry());
    }

    /// Work for later is read when its time has come, at the earliest time that is known.
    #[test]
    fn later_work_is_read_in_time() {
        let mut agenda = agenda();
        agenda.demand(key("a"), 5, Arc::default());
        agenda.pop();
        agenda.mark_at(key("a"), UnixMillis(200));
        agenda.mark_at(key("a"), UnixMillis(100));
        agenda.mark_at(key("a"), UnixMillis(300));
        assert_eq!(agenda.next_at(), Some(UnixMillis(100)));
        agenda.mark_until(UnixMillis(99));
        assert!(!agenda.is_busy());
        agenda.mark_until(UnixMillis(100));
        assert!(agenda.is_busy());
        assert_eq!(agenda.next_at(), None);
    }

    /// Rows for later are told when their time has come, and once more when the look that told them fails.
    #[test]
    fn rows_by_turns_appear_in_time() {
        let mut agenda = agenda();
        agenda.appear_at([(UnixMillis(100), key("a"), FairKey::new("x").ok())]);
        assert_eq!(agenda.next_at(), Some(UnixMillis(100)));
        agenda.mark_until(UnixMillis(99));
        assert!(!agenda.is_busy() && agenda.take_appeared().is_empty());
        agenda.mark_until(UnixMillis(100));
        assert!(agenda.is_busy());
        assert_eq!(agenda.take_appeared().len(), 1);
        agenda.put_back_appeared();
        assert_eq!(agenda.take_appeared().len(), 1);
        agenda.appeared_told();
        assert!(!agenda.is_busy() && agenda.take_appeared().is_empty());
    }
}
