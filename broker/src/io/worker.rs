//! A thread that does what may block: it carries out orders one after another and reports each.
//!
//! Two of them run in a broker. The *syncer* writes and syncs blocks of the log and the vote; the *filler* makes the
//! next segments, full of zeros, so that the syncer never has to. Neither decides anything: an order is complete in
//! itself, and the log that made it is told of its end by the loop.
//!
//! An error of a disk is not survived. After a failed sync nobody knows what is on the disk, and asking again is
//! answered with a lie, so the process ends there and then: no destructor runs, no acknowledgement leaves. In a process
//! that is more than a broker, the worker carries out nothing any more, and its last report is the error.

use std::{io, sync::mpsc, thread, time::Instant};

use sequor_wal::{Done, Prepared, SpareOrder, SyncError, Ticket};
use tokio::sync::mpsc as wakeful;

use super::{
    causes::with_causes,
    host::DiskFailure,
    limits::{LAST_ORDER_POLL, LAST_ORDER_TIMEOUT},
};

/// Something a worker can do.
pub(super) trait Order: Send + 'static {
    /// What comes of it.
    type Report: Send + 'static;
    /// The worker's name, as the system shows it.
    const WORKER: &'static str;

    /// Does it. Blocks.
    fn carry_out(&self) -> Result<Self::Report, SyncError>;
}

/// One thread and the two queues to and from it.
///
/// Both are without a limit of their own: the log hands out one ticket, and as many orders for spares as it keeps
/// spares, before it wants a report.
#[derive(Debug)]
pub(super) struct Worker<O: Order> {
    /// None only while the worker is being dropped.
    orders: Option<mpsc::Sender<O>>,
    reports: wakeful::UnboundedReceiver<Result<O::Report, SyncError>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl<O: Order> Worker<O> {
    /// Starts the thread. It ends with its worker, which waits for the order that is under way, though not for ever.
    pub(super) fn start(ends: DiskFailure) -> io::Result<Self> {
        let (orders, todo) = mpsc::channel::<O>();
        let (done, reports) = wakeful::unbounded_channel();
        let thread = thread::Builder::new().name(O::WORKER.to_owned()).spawn(move || {
            let mut failed = false;
            while let Ok(order) = todo.recv() {
                if failed {
                    continue;
                }
                let report = order.carry_out();
                if let Err(error) = &report {
                    complain(O::WORKER, error);
                    if ends == DiskFailure::Process {
                        std::process::exit(1);
                    }
                    failed = true;
                }
                if done.send(report).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { orders: Some(orders), reports, thread: Some(thread) })
    }

    /// Hands over an order.
    pub(super) fn give(&self, order: O) {
        let orders = self.orders.as_ref().expect("only taken when the worker is dropped");
        orders.send(order).expect("the thread lives as long as its worker, or the process has ended");
    }

    /// Waits for the next report.
    ///
    /// # Errors
    ///
    /// That of the disk. No other report follows it.
    pub(super) async fn report(&mut self) -> Result<O::Report, SyncError> {
        self.reports.recv().await.expect("the thread lives as long as its worker, or the process has ended")
    }

    /// The next report, if there is one.
    pub(super) fn try_report(&mut self) -> Option<Result<O::Report, SyncError>> {
        self.reports.try_recv().ok()
    }
}

impl<O: Order> Drop for Worker<O> {
    fn drop(&mut self) {
        drop(self.orders.take());
        // Nobody waits for more reports, so the thread stops after the order that is under way.
        self.reports.close();
        let Some(thread) = self.thread.take() else { return };
        let until = Instant::now() + LAST_ORDER_TIMEOUT;
        while !thread.is_finished() && Instant::now() < until {
            thread::sleep(LAST_ORDER_POLL);
        }
        if !thread.is_finished() {
            tracing::error!(
                worker = O::WORKER,
                "the disk does not answer; its last order is not waited for any longer"
            );
        } else if thread.join().is_err() {
            tracing::error!(worker = O::WORKER, "the worker panicked");
        }
    }
}

impl Order for Ticket {
    type Report = Done;
    const WORKER: &'static str = "sequor-syncer";

    fn carry_out(&self) -> Result<Done, SyncError> {
        self.run()
    }
}

impl Order for SpareOrder {
    type Report = Prepared;
    const WORKER: &'static str = "sequor-filler";

    fn carry_out(&self) -> Result<Prepared, SyncError> {
        self.run()
    }
}

fn complain(worker: &str, error: &SyncError) {
    tracing::error!(
        worker,
        error = with_causes(error),
        "the disk failed; this broker stops at once, and what it had not acknowledged is not acknowledged: \
         mend what the error says (the disk, the room on it, the limit of open files) before it is started again"
    );
}
