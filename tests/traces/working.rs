//! A worker on threads of this very process, so that the spans of its runs can be looked at.

use std::thread::{self, JoinHandle};

use laneway::{Stopper, Worker, WorkerBuilder};

/// Stops when dropped.
pub(crate) struct Working(Stopper, Option<JoinHandle<()>>);

impl Working {
    pub(crate) fn start(endpoint: impl Into<String>, with: impl FnOnce(WorkerBuilder) -> WorkerBuilder) -> Self {
        let worker = with(Worker::builder(endpoint).signals(false).name("test")).build().unwrap();
        let stopper = worker.stopper();
        let run = move || {
            worker.run().unwrap();
        };
        Self(stopper, Some(thread::spawn(run)))
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.0.stop();
        if let Some(Err(panic)) = self.1.take().map(JoinHandle::join)
            && !thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}
