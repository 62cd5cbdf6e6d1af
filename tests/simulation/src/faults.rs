//! What goes wrong: when, and how it heals. Which classes of faults a run has stands in its plan.

use crate::plan::{Fault, HEARTBEAT_MS};
use crate::world::{Due, World};

const HOUR_MS: u64 = 3_600_000;

impl World {
    pub(crate) fn next_fault(&mut self, fault: Fault) {
        let ms = self.faults_random.between(100, 2_000);
        self.due_in(ms, Due::Fault(fault));
    }

    pub(crate) fn strike(&mut self, fault: Fault) {
        if self.calm {
            return;
        }
        self.next_fault(fault);
        let ms = self.faults_random.between(50, 1_500);
        let until = self.now + ms;
        match fault {
            Fault::Cut => {
                let open = self.open_conns();
                if !open.is_empty() {
                    let (at, keeps) = (self.faults_random.index(open.len()), self.faults_random.chance(50));
                    self.note(format_args!("conn {} breaks", open[at]));
                    self.cut(open[at], keeps);
                }
            }
            Fault::Silence => {
                let at = self.faults_random.index(self.workers.len());
                let name = self.workers[at].name.clone();
                self.note(format_args!("{name} is out of reach for {ms} ms"));
                self.stall(at, until);
                if ms > HEARTBEAT_MS {
                    self.due_in(HEARTBEAT_MS, Due::Heal(fault));
                }
            }
            Fault::WorkerCrash => {
                let at = self.faults_random.index(self.workers.len());
                self.kill_worker(at);
            }
            Fault::BrokerCrash => self.kill_broker(),
            Fault::Freeze if self.host.is_up() => {
                self.note(format_args!("the broker stands still for {ms} ms"));
                self.host.frozen_until = until;
                self.auditor.disturbed(until);
            }
            Fault::PowerCut => self.lose_power(),
            Fault::Locked | Fault::Full | Fault::FailedSync => {
                self.note(format_args!("store: {fault:?} for {ms} ms"));
                self.set_store_fault(fault, true);
                self.auditor.disturbed(until);
                self.due_in(ms, Due::Heal(fault));
            }
            Fault::WallClock => {
                let by = i64::try_from(self.faults_random.below(HOUR_MS)).expect("an hour fits");
                self.wall_offset += if self.faults_random.chance(50) { by } else { -by };
                self.wall_offset_max = self.wall_offset_max.max(self.wall_offset);
                let offset = self.wall_offset;
                self.note(format_args!("the clock on the wall says {offset} ms"));
                self.auditor.disturbed(self.now);
            }
            Fault::Freeze | Fault::Handlers | Fault::RoughApps => {}
        }
    }

    pub(crate) fn mend(&mut self, fault: Fault) {
        match fault {
            Fault::Locked | Fault::Full | Fault::FailedSync => {
                self.set_store_fault(fault, false);
                self.scheduler_soon(1);
            }
            Fault::Silence => {
                for at in 0..self.workers.len() {
                    if self.workers[at].silent_until > self.now {
                        for conn in self.conns_of(at) {
                            self.cut(conn, false);
                        }
                    }
                }
            }
            _ => {}
        }
    }

    /// Nothing goes wrong from here on: what was kept back must come to its end.
    pub(crate) fn heal(&mut self) {
        self.calm = true;
        self.loosen();
        self.note(format_args!("the world is whole"));
        for fault in [Fault::Locked, Fault::Full, Fault::FailedSync] {
            self.set_store_fault(fault, false);
        }
        // What is due by the fastest of the clocks that were seen is due.
        self.wall_offset = self.wall_offset_max;
        self.auditor.disturbed(self.now);
        self.pause_schedules();
        // Processes that can run everything take the place of those that could not.
        for at in 0..self.workers.len() {
            self.kill_worker(at);
        }
        self.start_broker();
        self.signal_quiet(false);
        self.scheduler_soon(1);
    }

    fn lose_power(&mut self) {
        self.kill_broker();
        if let Some(half) = self.store_faults.take_half_written() {
            self.durable.push(half);
        }
        let at = self.faults_random.index(self.durable.len());
        self.note(format_args!("the power fails: copy {at} of {} is left", self.durable.len()));
        let left = self.durable.swap_remove(at);
        self.table.lose_power(&left);
        self.durable = vec![left];
        self.auditor.on_power_loss(&self.table);
    }

    fn set_store_fault(&mut self, fault: Fault, on: bool) {
        match fault {
            Fault::Locked => self.store_faults.set_locked(on),
            Fault::Full => self.store_faults.set_full(on),
            _ => self.store_faults.set_sync_fails(on),
        }
    }
}
