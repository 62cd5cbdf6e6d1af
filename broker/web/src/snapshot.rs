//! One picture of the broker: its numbers, five minutes of history, and what wants attention. Made by the thread `live`, never
//! changed afterwards, shared by all who look.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use laneway_protocol::message::{KindState, LaneRow, LostWorker, StatsReport, WorkerRow};

use crate::limits::HISTORY_MS;
use crate::rows::Oldest;
use crate::time::{bytes, grouped, now_ms, span};

/// A lane whose oldest due task is younger than this does not fall behind.
const OLD_MS: i64 = 60_000;
/// Kinds that are named, of those that no worker offers and of those that are paused.
const KINDS_NAMED: usize = 5;
/// Points of a lane's sparkline, and the time that one stands for.
const SPARK_POINTS: usize = 60;
const SPARK_STEP_MS: i64 = HISTORY_MS / 60;
/// Lost workers that are named.
const LOST_SHOWN: usize = 3;
/// What counts as now in a rate.
const NOW_MS: i64 = 5_000;

/// What the broker said, in one go.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    pub(crate) stats: StatsReport,
    pub(crate) lanes: Vec<LaneRow>,
    pub(crate) kinds: Vec<KindState>,
    pub(crate) workers: Vec<WorkerRow>,
    pub(crate) database_bytes: u64,
    pub(crate) oldest: Oldest,
}

impl Facts {
    pub(crate) fn slots(&self) -> u64 {
        self.workers.iter().map(|worker| u64::from(worker.slots)).sum()
    }

    pub(crate) fn busy(&self) -> u64 {
        self.workers.iter().map(|worker| u64::from(worker.busy())).sum()
    }
}

/// One point of history: counters since the broker's start, and what waits and runs in each lane.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) at: i64,
    pub(crate) epoch: u64,
    submitted: u64,
    done: u64,
    failed: u64,
    /// Name, queued, handed out.
    lanes: Vec<(String, u64, u64)>,
    oldest_ms: BTreeMap<String, i64>,
}

impl Sample {
    pub(crate) fn of(facts: &Facts, now: i64) -> Self {
        Self {
            at: now,
            epoch: facts.stats.epoch,
            submitted: facts.stats.submitted,
            done: facts.stats.done,
            failed: facts.stats.failed,
            lanes: facts.lanes.iter().map(|lane| (lane.lane.clone(), lane.queued, lane.handed_out)).collect(),
            oldest_ms: facts.oldest.lanes().map(|(lane, since)| (lane.clone(), now - since)).collect(),
        }
    }
}

/// Events a second between two samples.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize)]
pub(crate) struct Rates {
    /// Unix seconds.
    pub(crate) at: i64,
    pub(crate) submitted: f64,
    pub(crate) done: f64,
    pub(crate) failed: f64,
}

/// How urgent a word is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    Bad,
    Warn,
    Note,
}

impl Level {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Level::Bad => "bad",
            Level::Warn => "warn",
            Level::Note => "note",
        }
    }
}

/// Something that a person should look at, and where.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Notice {
    pub(crate) level: Level,
    pub(crate) text: String,
    /// A path of the dashboard, without its base.
    pub(crate) link: String,
    #[serde(skip)]
    pub(crate) action: &'static str,
}

#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    pub(crate) taken: Instant,
    /// False before anybody has looked.
    pub(crate) is_taken: bool,
    /// Unix milliseconds.
    pub(crate) at: i64,
    /// When the broker answered last.
    pub(crate) answered: Option<Instant>,
    /// Absent while it does not answer.
    pub(crate) facts: Option<Facts>,
    /// Why it does not.
    pub(crate) trouble: Option<String>,
    pub(crate) database_bytes: u64,
    pub(crate) rates: Vec<Rates>,
    /// By lane: hand-outs in ten seconds, evenly over the history.
    pub(crate) paces: BTreeMap<String, Vec<u64>>,
    /// By lane: hand-outs a second, of about the last five.
    pub(crate) lane_rates: BTreeMap<String, f64>,
    pub(crate) notices: Vec<Notice>,
    /// The kinds seen last and their lanes, also while the broker is away: they make the table's indexes useful.
    pub(crate) kind_lanes: Vec<(String, String)>,
}

impl Snapshot {
    pub(crate) fn nothing_yet() -> Self {
        Self {
            taken: Instant::now(),
            is_taken: false,
            at: now_ms(),
            answered: None,
            facts: None,
            trouble: None,
            database_bytes: 0,
            rates: Vec::new(),
            paces: BTreeMap::new(),
            lane_rates: BTreeMap::new(),
            notices: Vec::new(),
            kind_lanes: Vec::new(),
        }
    }

    pub(crate) fn of(facts: Facts, history: &VecDeque<Sample>) -> Self {
        Self {
            is_taken: true,
            answered: Some(Instant::now()),
            database_bytes: facts.database_bytes,
            rates: rates(history),
            paces: paces(history),
            lane_rates: lane_rates(history),
            notices: notices(&facts, history),
            kind_lanes: facts.kinds.iter().map(|kind| (kind.kind.to_string(), kind.lane.to_string())).collect(),
            facts: Some(facts),
            ..Self::nothing_yet()
        }
    }

    pub(crate) fn without_answer(last: &Self, why: String, database_bytes: u64) -> Self {
        let notice = Notice {
            level: Level::Bad,
            text: "The broker does not answer: showing what the database says.".into(),
            link: "/about".into(),
            action: "Where it was looked for",
        };
        Self {
            is_taken: true,
            answered: last.answered,
            trouble: Some(why),
            database_bytes,
            rates: last.rates.clone(),
            paces: last.paces.clone(),
            notices: vec![notice],
            kind_lanes: last.kind_lanes.clone(),
            ..Self::nothing_yet()
        }
    }

    /// The rates of about the last five seconds.
    pub(crate) fn rate_now(&self) -> Rates {
        // One look at least, and of several those that are not older.
        let is_now = |&(at, rates): &(usize, &Rates)| at == 0 || self.at / 1_000 - rates.at < NOW_MS / 1_000;
        let last: Vec<&Rates> =
            self.rates.iter().rev().enumerate().take_while(is_now).map(|(_, rates)| rates).collect();
        let n = f64::from(u32::try_from(last.len().max(1)).unwrap_or(1));
        // The sum of no numbers would be -0.
        let mean = |of: fn(&Rates) -> f64| last.iter().fold(0.0, |sum, rates| sum + of(rates)) / n;
        Rates {
            at: self.at / 1_000,
            submitted: mean(|r| r.submitted),
            done: mean(|r| r.done),
            failed: mean(|r| r.failed),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate is for eyes")]
fn rates(history: &VecDeque<Sample>) -> Vec<Rates> {
    let between = |(a, b): (&Sample, &Sample)| {
        let seconds = (b.at - a.at).max(1) as f64 / 1_000.0;
        let rate = |a: u64, b: u64| b.saturating_sub(a) as f64 / seconds;
        Rates {
            at: b.at / 1_000,
            submitted: rate(a.submitted, b.submitted),
            done: rate(a.done, b.done),
            failed: rate(a.failed, b.failed),
        }
    };
    history.iter().zip(history.iter().skip(1)).map(between).collect()
}

/// Hand-outs of a lane between two samples, and the milliseconds between them.
fn handed_out(a: &Sample, b: &Sample) -> (BTreeMap<String, u64>, u64) {
    let before: BTreeMap<&String, u64> = a.lanes.iter().map(|(lane, _, n)| (lane, *n)).collect();
    let gain = |(lane, _, n): &(String, u64, u64)| Some((lane.clone(), n.saturating_sub(*before.get(lane)?)));
    (b.lanes.iter().filter_map(gain).collect(), u64::try_from(b.at - a.at).unwrap_or(0).max(1))
}

/// Evenly over time, though looks come more often while somebody is there: a long gap has several points.
fn paces(history: &VecDeque<Sample>) -> BTreeMap<String, Vec<u64>> {
    // From the newest backwards, so that the last point is always the present.
    let mut points: Vec<&Sample> = Vec::new();
    for (at, sample) in history.iter().enumerate().rev() {
        if at == 0 || points.last().is_none_or(|newer| newer.at - sample.at >= SPARK_STEP_MS) {
            points.push(sample);
        }
    }
    points.reverse();
    let mut lanes: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for pair in points.windows(2) {
        let (gains, ms) = handed_out(pair[0], pair[1]);
        let times = usize::try_from(ms / SPARK_STEP_MS.unsigned_abs()).unwrap_or(1).clamp(1, SPARK_POINTS);
        for (lane, n) in gains {
            lanes.entry(lane).or_default().extend(std::iter::repeat_n(n.saturating_mul(10_000) / ms, times));
        }
    }
    lanes
}

#[expect(clippy::cast_precision_loss, reason = "a rate is for eyes")]
fn lane_rates(history: &VecDeque<Sample>) -> BTreeMap<String, f64> {
    let Some(last) = history.back() else { return BTreeMap::new() };
    let past = history.iter().rev().find(|sample| last.at - sample.at >= NOW_MS);
    let Some(first) = past.or(history.front()) else { return BTreeMap::new() };
    let (gains, ms) = handed_out(first, last);
    gains.into_iter().map(|(lane, n)| (lane, n as f64 * 1_000.0 / ms as f64)).collect()
}

fn notices(facts: &Facts, history: &VecDeque<Sample>) -> Vec<Notice> {
    let stats = &facts.stats;
    let mut found = Vec::new();
    let mut note = |level, text: String, link: &str, action| {
        found.push(Notice { level, text, link: link.into(), action });
    };
    if let Some(error) = &stats.storage_error {
        note(Level::Bad, format!("The store refuses work: {error}"), "/about", "Where it lies");
    }
    if stats.draining {
        note(Level::Warn, "The broker drains: nothing is handed out.".into(), "/workers", "See workers");
    }
    if stats.quiet {
        let text = "The broker is quiet: nothing is handed out until it gets SIGCONT.".into();
        note(Level::Warn, text, "/tasks?state=queued", "See what waits");
    }
    if stats.wal_pinned_bytes > 0 {
        let text = format!(
            "The write-ahead log cannot shrink ({}): a reader holds a transaction open.",
            bytes(stats.wal_pinned_bytes)
        );
        note(Level::Warn, text, "/about", "Details");
    }
    for lost in stats.lost_workers.iter().take(LOST_SHOWN) {
        note(Level::Bad, lost_words(lost), "/workers", "See workers");
    }
    if stats.lost_workers.len() > LOST_SHOWN {
        let more = stats.lost_workers.len() - LOST_SHOWN;
        let text = format!("{more} more {} died in the last minutes.", if more == 1 { "worker" } else { "workers" });
        note(Level::Bad, text, "/workers", "See workers");
    }
    let mut unserved = facts.kinds.iter().filter(|kind| kind.queued > 0 && kind.workers == 0);
    for kind in unserved.by_ref().take(KINDS_NAMED) {
        let (wait, queued) = (if kind.queued == 1 { "waits" } else { "wait" }, tasks(kind.queued));
        let text = format!("{queued} of kind {} {wait} and no worker offers it.", kind.kind);
        note(Level::Warn, text, &format!("/tasks?state=queued&q=kind:{}", encode(kind.kind.as_str())), "See them");
    }
    if let more @ 1.. = unserved.count() {
        let text =
            format!("{more} more {} tasks that wait and no worker.", if more == 1 { "kind has" } else { "kinds have" });
        note(Level::Warn, text, "/lanes", "See kinds");
    }
    for (lane, since) in facts.oldest.lanes() {
        let age = now_ms() - since;
        if age > OLD_MS && falls_behind(lane, age, history) {
            let at_least = if facts.oldest.is_partial(lane) { "at least " } else { "" };
            let text = format!("Lane {lane} falls behind: its oldest due task has waited {at_least}{}.", span(age));
            note(Level::Warn, text, &format!("/tasks?state=queued&q=lane:{}", encode(lane)), "See them");
        }
    }
    for lane in facts.lanes.iter().filter(|lane| lane.paused) {
        let (level, waits) = behind_pause(lane.queued);
        note(level, format!("Lane {} is paused, {waits}.", lane.lane), "/lanes", "See lanes");
    }
    let mut paused = facts.kinds.iter().filter(|kind| kind.paused);
    for kind in paused.by_ref().take(KINDS_NAMED) {
        let link = format!("/lanes?find={}", encode(kind.kind.as_str()));
        let (level, waits) = behind_pause(kind.queued);
        note(level, format!("Kind {} is paused, {waits}.", kind.kind), &link, "See it");
    }
    if let more @ 1.. = paused.count() {
        let text = format!("{more} more {} paused.", if more == 1 { "kind is" } else { "kinds are" });
        note(Level::Warn, text, "/lanes", "See kinds");
    }
    if stats.dead > 0 {
        let text = format!("{} {} dead.", tasks(stats.dead), if stats.dead == 1 { "is" } else { "are" });
        note(Level::Note, text, "/dead", "See why");
    }
    found.sort_by_key(|notice| notice.level);
    found
}

/// Whether the age of its oldest due task grows by more than half of the time that passes. A lane that is late, and no later than
/// it was, is served.
fn falls_behind(lane: &str, age: i64, history: &VecDeque<Sample>) -> bool {
    let Some(first) = history.front() else { return false };
    let before = first.oldest_ms.get(lane).copied().unwrap_or(0);
    (age - before).saturating_mul(2) > now_ms() - first.at
}

/// In whole minutes, so that the words do not change with every look.
fn lost_words(lost: &LostWorker) -> String {
    let host = if lost.host.is_empty() { String::new() } else { format!(" on {}", lost.host) };
    let ago = match lost.ago_ms / 60_000 {
        0 => "less than a minute ago".into(),
        minutes => format!("{} ago", span(i64::try_from(minutes * 60_000).unwrap_or(i64::MAX))),
    };
    let went_back = match lost.running {
        0 => String::new(),
        n => format!("; {} went back", tasks(n.into())),
    };
    format!("Worker {}{host} died {ago}{went_back}.", lost.name)
}

/// A pause that holds nothing back is worth a word and no warning.
fn behind_pause(queued: u64) -> (Level, String) {
    match queued {
        0 => (Level::Note, "nothing waits".into()),
        1 => (Level::Warn, "1 task waits".into()),
        n => (Level::Warn, format!("{} wait", tasks(n))),
    }
}

fn tasks(n: u64) -> String {
    if n == 1 { "1 task".into() } else { format!("{} tasks", grouped(n)) }
}

/// For a query string.
pub(crate) fn encode(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use laneway::{Kind, LaneName};

    use super::*;

    fn sample(at: i64, done: u64, handed_out: u64) -> Sample {
        let mut facts = Facts::default();
        facts.stats.done = done;
        facts.lanes = vec![LaneRow { handed_out, ..LaneRow::new("high".into()) }];
        Sample::of(&facts, at)
    }

    #[test]
    fn rates_are_by_the_time_between_two_looks() {
        // Proves that a look after ten seconds without anybody is not taken for a burst, and takes its room in a sparkline.
        let history = VecDeque::from([sample(0, 0, 0), sample(1_000, 100, 6), sample(11_000, 200, 16)]);
        let rates = rates(&history);
        assert_eq!(rates.iter().map(|rate| rate.done).collect::<Vec<_>>(), [100.0, 10.0]);
        assert_eq!(paces(&history)["high"], [60, 10, 10]);
        assert!((lane_rates(&history)["high"] - 1.0).abs() < 1e-9);
    }

    #[test]
    fn what_wants_attention_is_said_with_the_worst_first() {
        // Proves each word of the strip, and that there is none while all is well.
        assert_eq!(notices(&Facts::default(), &VecDeque::new()), []);
        let mut facts = Facts::default();
        facts.stats.dead = 1;
        facts.stats.quiet = true;
        facts.stats.storage_error = Some("disk full".into());
        facts.lanes = vec![LaneRow { paused: true, queued: 2_000, ..LaneRow::new("low".into()) }];
        facts.oldest.since.insert("high".into(), now_ms() - 2 * OLD_MS);
        facts.kinds = vec![kind("mail", 3, 0)];
        let lost = |running, ago_ms| LostWorker { name: "web-1".into(), host: "alder".into(), running, ago_ms };
        facts.stats.lost_workers = vec![lost(1, 59_999), lost(0, 150_000), lost(2, 0), lost(2, 0), lost(2, 0)];
        let mut history = VecDeque::from([Sample::of(&facts, now_ms() - 60_000)]);
        history[0].oldest_ms.insert("high".into(), OLD_MS);
        let texts: Vec<String> = notices(&facts, &history).into_iter().map(|notice| notice.text).collect();
        assert_eq!(texts.len(), 10, "{texts:?}");
        assert!(texts[0].contains("disk full") && texts[9] == "1 task is dead.", "{texts:?}");
        assert_eq!(texts[1], "Worker web-1 on alder died less than a minute ago; 1 task went back.");
        assert_eq!(texts[2], "Worker web-1 on alder died 2 min ago.");
        assert_eq!(texts[4], "2 more workers died in the last minutes.");
        assert!(texts[5].contains("is quiet") && texts[6].contains("3 tasks of kind mail"), "{texts:?}");
        assert!(texts[7].contains("Lane high falls behind"), "{texts:?}");
        assert!(texts[8].contains("Lane low is paused, 2,000 tasks wait"), "{texts:?}");
    }

    #[test]
    fn one_task_waits_and_a_pause_without_any_is_no_warning() {
        // Proves the words for one and for none, and that a rate which nobody has seen yet is 0 and not -0.
        let lane = |name: &str, queued| LaneRow { paused: true, queued, ..LaneRow::new(name.into()) };
        let kinds = vec![kind("mail", 1, 0), KindState { paused: true, ..kind("idle", 0, 1) }];
        let facts = Facts { lanes: vec![lane("high", 1), lane("low", 0)], kinds, ..Facts::default() };
        let told: Vec<_> = notices(&facts, &VecDeque::new()).into_iter().map(|of| (of.level, of.text)).collect();
        let of = |level, text: &str| (level, text.to_owned());
        assert_eq!(
            told,
            [
                of(Level::Warn, "1 task of kind mail waits and no worker offers it."),
                of(Level::Warn, "Lane high is paused, 1 task waits."),
                of(Level::Note, "Lane low is paused, nothing waits."),
                of(Level::Note, "Kind idle is paused, nothing waits."),
            ]
        );
        assert_eq!(Snapshot::nothing_yet().rate_now().done.to_string(), "0");
    }

    #[test]
    fn kinds_beyond_those_that_are_named_are_counted() {
        // Proves that neither strip hides how many there are, and that none is said where all are named.
        let kinds = |n: usize| -> Vec<KindState> {
            (0..n).map(|n| KindState { paused: true, ..kind(&format!("k{n}"), 1, 0) }).collect()
        };
        let texts = |n: usize| -> Vec<String> {
            let facts = Facts { kinds: kinds(n), ..Facts::default() };
            notices(&facts, &VecDeque::new()).into_iter().map(|notice| notice.text).collect()
        };
        assert_eq!(texts(KINDS_NAMED).len(), 2 * KINDS_NAMED);
        let more = texts(KINDS_NAMED + 1);
        assert_eq!(more[KINDS_NAMED], "1 more kind has tasks that wait and no worker.");
        assert_eq!(more.last().unwrap(), "1 more kind is paused.");
        assert_eq!(texts(KINDS_NAMED + 7).last().unwrap(), "7 more kinds are paused.");
    }

    pub(crate) fn kind(name: &str, queued: u64, workers: u64) -> KindState {
        KindState {
            kind: Kind::new(name).unwrap(),
            paused: false,
            queued,
            running: 0,
            workers,
            cap: None,
            rate: None,
            rate_burst: None,
            lane: LaneName::new("normal").unwrap(),
            max_attempts: 3,
            timeout_ms: 1,
            backoff_base_ms: 1,
            backoff_max_ms: 1,
            done_age_ms: None,
            done_count_max: None,
            cancelled_age_ms: None,
            cancelled_count_max: None,
            dead_age_ms: None,
            dead_count_max: None,
            set: Vec::new(),
            settings: Vec::new(),
        }
    }
}
