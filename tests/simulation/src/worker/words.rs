//! What handlers say beside how far they are: pieces of a result, lines of a log, checkpoints, and questions after their parents.

use laneway_protocol::Payload;
use laneway_protocol::message::Progress;

use crate::world::World;

/// One line in some is longer than may be told; its characters have two bytes.
const LONG_LINE: usize = 5_000;

impl World {
    /// A handler's next word, in runs whose handlers say more than a count and a note.
    pub(super) fn word(&mut self, plain: Progress) -> Progress {
        if !self.plan.words {
            return plain;
        }
        let now = self.now;
        let random = &mut self.word_random;
        // Such a word is answered when the table was looked at, and tells what else it says with that.
        let asks = random.chance(25);
        let parents = asks.then(|| if random.chance(70) { 0 } else { random.below(plain.task.value()) });
        if asks && random.chance(50) {
            return Progress { done: None, note: None, parents, ..plain };
        }
        let mut piece = |more: u64| {
            let mut text = format!("\"{} {now} {}\"", plain.lease, "x".repeat(random.index(3) * 40));
            if random.chance(40) {
                text.push('\u{ff}');
                return random.chance(more).then(|| Payload::bin(text));
            }
            random.chance(more).then(|| Payload::json(text))
        };
        let (data, checkpoint) = (piece(25), piece(40));
        let log = random.chance(25).then(|| {
            let n = if random.chance(10) { LONG_LINE } else { random.index(50) };
            format!("{now} {}\n", "\u{e9}".repeat(n))
        });
        let (done, note) = (plain.done.filter(|_| random.chance(60)), plain.note.clone().filter(|_| random.chance(60)));
        Progress { done, note, data, log, checkpoint, parents, ..plain }
    }
}
