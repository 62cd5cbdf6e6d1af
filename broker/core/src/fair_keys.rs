//! `FAIR_KEYS`: what people set of fair keys while the broker runs, over what the settings say of them. Kept in the table, so
//! that it outlives the broker. Made to hold at [`gate`](crate::gate) and in the turns of [`fair`](crate::fair).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use laneway_protocol::codec::Room;
use laneway_protocol::limits::WEIGHT_MAX;
use laneway_protocol::message::{Answer, FairKeyRow, FairKeyRows, FairKeyValues, FairKeys, SetFairKey};
use laneway_protocol::{Code, FairKey, WireError};

use crate::action::Op;
use crate::broker::Broker;
use crate::event::{Asker, ReplyTo};
use crate::gate::Bounds;
use crate::kinds::{bounds, check_bounds, of, within};
use crate::limits::{ANSWER_LIST_BYTES, FAIR_KEYS_SET_MAX};
use crate::settle::Pending;
use crate::time::Now;

impl Broker {
    /// At start: what the settings say, and what was set in earlier lives.
    pub(crate) fn begin_fair_keys(&mut self, set: Vec<(FairKey, FairKeyValues)>, now: Now) {
        self.set_keys = set.into_iter().collect();
        self.make_keys_hold(now);
    }

    pub(crate) fn on_fair_keys(&mut self, from: Asker, keys: FairKeys, now: Now) {
        let set = match self.set_keys_with(&keys) {
            Ok(set) => set,
            Err(error) => return self.refuse(from.reply, error),
        };
        if !set.is_empty() {
            for (fair_key, values) in set {
                self.store_for(Op::SetFairKey { fair_key: fair_key.clone(), values: values.clone() }, Pending::Nothing);
                if values == FairKeyValues::default() {
                    self.set_keys.remove(&fair_key);
                } else {
                    self.set_keys.insert(fair_key, values);
                }
            }
            self.make_keys_hold(now);
        }
        self.ask_store(from.reply, Op::Counts, Pending::FairKeys { reply: from.reply, after: keys.after }, now);
    }

    /// What is set of each key that a question names, once it is done.
    fn set_keys_with(&self, keys: &FairKeys) -> Result<BTreeMap<FairKey, FairKeyValues>, WireError> {
        let mut set: BTreeMap<FairKey, FairKeyValues> =
            keys.reset.iter().map(|key| (key.clone(), FairKeyValues::default())).collect();
        for (n, SetFairKey { fair_key, values }) in keys.set.iter().enumerate() {
            let field = |name: &str| format!("set[{n}].values.{name}");
            within("weight", values.weight.map(u64::from), 1, WEIGHT_MAX.into(), &field)?;
            check_bounds(values.cap, values.rate_burst, &field)?;
            let entry = set.entry(fair_key.clone()).or_insert_with(|| of(&self.set_keys, fair_key));
            *entry = over(values, entry);
        }
        let fresh = set
            .iter()
            .filter(|(key, values)| **values != FairKeyValues::default() && !self.set_keys.contains_key(*key));
        if self.set_keys.len() + fresh.count() > FAIR_KEYS_SET_MAX {
            let text = format!(
                "{} fair keys have values of their own, {FAIR_KEYS_SET_MAX} may: `*` stands for all others",
                self.set_keys.len()
            );
            return Err(WireError::new(Code::Full, text));
        }
        Ok(set)
    }

    fn make_keys_hold(&mut self, now: Now) {
        let known = self.settings.fair_key_values.keys().chain(self.set_keys.keys());
        let weights: HashMap<FairKey, u32> =
            known.filter_map(|key| Some((key.clone(), self.key_values(key).weight?))).collect();
        let weight = weights.get(&FairKey::every()).copied().unwrap_or(1);
        self.dispatch.set_weights(weight, weights);
        self.bound_keys(now);
    }

    /// What was set of a key, or the settings say; then the same of `*`.
    fn key_values(&self, key: &FairKey) -> FairKeyValues {
        let every = FairKey::every();
        let [set, own, set_of_all, of_all] = [
            (&self.set_keys, key),
            (&self.settings.fair_key_values, key),
            (&self.set_keys, &every),
            (&self.settings.fair_key_values, &every),
        ]
        .map(|(all, key)| of(all, key));
        over(&set, &over(&own, &over(&set_of_all, &of_all)))
    }

    pub(crate) fn key_bounds(&self, key: &FairKey) -> Bounds {
        if self.set_keys.is_empty() && self.settings.fair_key_values.is_empty() {
            return Bounds::default();
        }
        let values = self.key_values(key);
        bounds(values.cap, values.rate, values.rate_burst)
    }

    pub(crate) fn on_fair_keys_set(&mut self, reply: ReplyTo, after: Option<&FairKey>) {
        if !self.close_question(reply) {
            return;
        }
        let mut running: BTreeMap<&FairKey, u64> = BTreeMap::new();
        for key in self.running.values().filter_map(|task| task.fair_key.as_ref()) {
            *running.entry(key).or_default() += 1;
        }
        let mut keys: BTreeSet<&FairKey> = running.keys().copied().collect();
        keys.extend(self.set_keys.keys().chain(self.settings.fair_key_values.keys()));
        let mut room = Room::with_reserved(ANSWER_LIST_BYTES);
        let mut rows = FairKeyRows::default();
        for key in keys.into_iter().filter(|key| after.is_none_or(|after| *key > after)) {
            let mut row = self.fair_key_row(key, running.get(key).copied().unwrap_or(0));
            if !room.take_fair_key(&mut row) {
                rows.next = rows.fair_keys.last().map(|row| row.fair_key.clone());
                break;
            }
            rows.fair_keys.push(row);
        }
        self.answer(reply, Answer::FairKeys(rows));
    }

    fn fair_key_row(&self, key: &FairKey, running: u64) -> FairKeyRow {
        let (set, own) = (of(&self.set_keys, key), of(&self.settings.fair_key_values, key));
        let Bounds { cap, rate, .. } = self.key_bounds(key);
        FairKeyRow {
            fair_key: key.clone(),
            running,
            weight: self.dispatch.fair_rules().weight_of(Some(key)),
            cap,
            rate: rate.map(|(rate, _)| rate),
            rate_burst: rate.map(|(_, burst)| burst).filter(|&burst| burst > 0),
            settings: names(&own).filter(|name| !names(&set).any(|set| set == *name)).map(Into::into).collect(),
            set: names(&set).map(Into::into).collect(),
        }
    }
}

/// The values of `upper`, and where it says nothing those of `lower`.
fn over(upper: &FairKeyValues, lower: &FairKeyValues) -> FairKeyValues {
    FairKeyValues {
        weight: upper.weight.or(lower.weight),
        cap: upper.cap.or(lower.cap),
        rate: upper.rate.or(lower.rate),
        rate_burst: upper.rate_burst.or(lower.rate_burst),
    }
}

/// The fields that are said.
fn names(values: &FairKeyValues) -> impl Iterator<Item = &'static str> {
    let said = [
        ("weight", values.weight.is_some()),
        ("cap", values.cap.is_some()),
        ("rate", values.rate.is_some()),
        ("rate_burst", values.rate_burst.is_some()),
    ];
    said.into_iter().filter(|(_, said)| *said).map(|(name, _)| name)
}
