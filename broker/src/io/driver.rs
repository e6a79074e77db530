//! The loop that runs the core: wait for anything, hand it in, one pass, carry out what comes of it.
//!
//! ```text
//!   sessions, inboxes ──bell──┐
//!   syncer: a ticket is done ─┤
//!   filler: a spare, or none ─┼─► feed ─► pass ─► ticket ──► syncer
//!   the next tick is due ─────┤                   messages ► peer links
//!   told to stop ─────────────┘                   answers ─► exchanges ─► one write per stream
//!                                                 progress ► subscriptions
//! ```
//!
//! There is no timer between an event and its pass, and no pass per event: whatever has gathered while this task was
//! not running is worked on at once. Under load passes grow by themselves, at rest each request has its own.

use std::{
    collections::BTreeSet,
    pin::pin,
    rc::Rc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use sequor_client::protocol::{BrokerId, Status};
use sequor_wal::{Done, Prepared, SpareOrder, Ticket};
use tokio::{
    task::yield_now,
    time::{sleep_until, timeout},
};

use super::{
    ServeError,
    broker::{Broker, Progress},
    causes::with_causes,
    close::Close,
    host::Host,
    limits::{FAREWELL_TIMEOUT, LAST_SYNC_TIMEOUT},
    worker::Worker,
};
use crate::core::Core;

/// Where a broker is on its way from serving to stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It serves.
    Serving,
    /// It was told to stop and waits for another broker to lead.
    HandingOver {
        /// When it waits no longer.
        until: Instant,
    },
    /// It waits for its disk and for its last answers to be written.
    Draining {
        /// When it waits no longer.
        until: Instant,
    },
}

/// Runs one broker.
#[derive(Debug)]
pub(super) struct Driver {
    broker: Rc<Broker>,
    host: Rc<dyn Host>,
    syncer: Worker<Ticket>,
    filler: Worker<SpareOrder>,
    syncing: bool,
    /// The last pass left work behind.
    has_more: bool,
    /// Term and leader as the log of this process has them.
    told: (u64, Option<BrokerId>),
    /// As the log of this process has it, the disk hangs.
    told_of_stall: bool,
    phase: Phase,
    hand_over_timeout: Duration,
}

impl Driver {
    /// A driver over threads of its own. Leadership is waited for no longer than `hand_over_timeout` at a stop.
    pub(super) fn new(
        broker: Rc<Broker>,
        host: Rc<dyn Host>,
        hand_over_timeout: Duration,
    ) -> std::io::Result<Self> {
        let ends = host.disk_failure();
        Ok(Self {
            broker,
            host,
            syncer: Worker::start(ends)?,
            filler: Worker::start(ends)?,
            syncing: false,
            has_more: false,
            told: (0, None),
            told_of_stall: false,
            phase: Phase::Serving,
            hand_over_timeout,
        })
    }

    /// Runs until `stop` completes and everything is handed over, written and synced.
    ///
    /// # Errors
    ///
    /// [`ServeError::Halted`], [`ServeError::Panicked`], or [`ServeError::Disk`] where that does not end the process.
    pub(super) async fn run(mut self, stop: impl Future<Output = ()>) -> Result<(), ServeError> {
        let mut stop = pin!(stop);
        let mut due = self.pass()?;
        let mut tick = pin!(sleep_until(due.into()));
        while !self.is_done() {
            tokio::select! {
                biased;
                () = self.broker.rung() => {}
                done = self.syncer.report() => self.handle_synced(done?),
                spare = self.filler.report() => self.handle_spare(spare?),
                () = &mut tick => {}
                () = &mut stop, if self.phase == Phase::Serving => self.begin_to_stop(),
                () = yield_now(), if self.has_more => {}
            }
            let next = self.pass()?;
            if next != due {
                due = next;
                tick.as_mut().reset(due.into());
            }
        }
        self.say_farewell().await;
        Ok(())
    }

    /// Hands in what has gathered, has the core work, carries out what comes of it. Says when the next tick is due.
    fn pass(&mut self) -> Result<Instant, ServeError> {
        while let Some(done) = self.syncer.try_report() {
            self.handle_synced(done?);
        }
        while let Some(spare) = self.filler.try_report() {
            self.handle_spare(spare?);
        }
        let broker = Rc::clone(&self.broker);
        let mut core = broker.core();
        let now = broker.now();
        core.handle_tick(now);
        core.handle_traffic(broker.traffic());
        core.pass(now, wall_ms());
        check(&broker, &core)?;
        self.carry_out(&mut core);
        self.go_on_stopping(&mut core);
        self.has_more = core.wants_pass();
        Ok(broker.instant(core.next_tick()))
    }

    /// The disk first, for it takes longest; then the peers, who have disks too; then those who wait for an answer.
    fn carry_out(&mut self, core: &mut Core) {
        if let Some(ticket) = core.poll_ticket(self.broker.now()) {
            self.syncing = true;
            self.syncer.give(ticket);
        }
        let mut lost = BTreeSet::new();
        while let Some((peer, message)) = core.poll_peer() {
            if !self.broker.links().get(&peer).is_some_and(|link| link.send(&message)) {
                lost.insert(peer);
            }
        }
        for peer in lost {
            core.handle_peer_lost(peer);
        }
        while let Some(reply) = core.poll_reply() {
            self.broker.hand_out(reply);
        }
        if let Some(leads) = core.poll_leads() {
            self.broker.announce(leads);
        }
        let status = core.status();
        self.tell_of_leadership(&status);
        self.tell_of_disk(core.is_stalled());
        self.host.observe(&status);
        self.broker.set_progress(Progress { end: core.end(), leads: core.leads() });
        while let Some(order) = core.poll_spare(self.broker.now()) {
            self.filler.give(order);
        }
    }

    /// One line for each change of leader: what an operator looks for first.
    fn tell_of_leadership(&mut self, status: &Status) {
        let now = (status.term, status.leader);
        if now == self.told {
            return;
        }
        self.told = now;
        match status.leader {
            Some(leader) if leader == status.id => tracing::info!(term = status.term, "this broker leads"),
            Some(leader) => tracing::info!(term = status.term, %leader, "another broker leads"),
            None => tracing::info!(term = status.term, "no broker leads"),
        }
    }

    fn tell_of_disk(&mut self, stalled: bool) {
        match (self.told_of_stall, stalled) {
            (false, true) => tracing::warn!(
                "the disk takes long to sync: as leader this broker writes nothing more until it answers"
            ),
            (true, false) => tracing::info!("the disk answers again"),
            _ => {}
        }
        self.told_of_stall = stalled;
    }

    fn handle_synced(&mut self, done: Done) {
        self.syncing = false;
        self.broker.core().handle_synced(self.broker.now(), done);
    }

    fn handle_spare(&mut self, prepared: Prepared) {
        let mut core = self.broker.core();
        let was_full = core.is_full();
        match &prepared {
            Prepared::NoRoom { file, bytes } if !was_full => tracing::warn!(
                file,
                bytes,
                "the disk is full: as leader this broker takes no writes until there is room for another segment"
            ),
            _ => {}
        }
        core.handle_spare(self.broker.now(), prepared);
        if was_full && !core.is_full() {
            tracing::info!("the disk has room again");
        }
    }

    fn begin_to_stop(&mut self) {
        tracing::info!("stopping: leadership is handed over, then the disk is waited for");
        self.broker.close_door();
        self.broker.core().hand_over(self.broker.now());
        // A broker without peers has nobody to wait for.
        let patience = if self.broker.links().is_empty() { Duration::ZERO } else { self.hand_over_timeout };
        self.phase = Phase::HandingOver { until: Instant::now() + patience };
    }

    /// Goes on to drain once another broker leads, or none did in time.
    fn go_on_stopping(&mut self, core: &mut Core) {
        if let Phase::HandingOver { until } = self.phase
            && (!core.leads() || Instant::now() >= until)
        {
            core.prepare_to_stop();
            if let Some(ticket) = core.poll_ticket(self.broker.now()) {
                self.syncing = true;
                self.syncer.give(ticket);
            }
            self.phase = Phase::Draining { until: Instant::now() + LAST_SYNC_TIMEOUT };
        }
    }

    fn is_done(&self) -> bool {
        match self.phase {
            Phase::Serving | Phase::HandingOver { .. } => false,
            Phase::Draining { until } => {
                let drained = !self.syncing && self.broker.has_answered_all();
                drained || Instant::now() >= until
            }
        }
    }

    /// Tells everybody connected that this broker is gone, so that they need not find out by waiting.
    async fn say_farewell(&self) {
        let endpoint = self.broker.endpoint();
        endpoint.close(Close::Stopping.code(), b"this broker stops");
        if timeout(FAREWELL_TIMEOUT, endpoint.wait_idle()).await.is_err() {
            tracing::debug!("some connections did not hear of the stop in time");
        }
        tracing::info!("stopped");
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // However it ends: the threads are waited for next.
        self.broker.hasten();
    }
}

fn check(broker: &Broker, core: &Core) -> Result<(), ServeError> {
    if let Some(halt) = core.halted() {
        tracing::error!(
            error = with_causes(halt),
            "this broker must not go on; nothing more is acknowledged"
        );
        return Err(ServeError::Halted { why: with_causes(halt) });
    }
    if broker.has_panicked() {
        return Err(ServeError::Panicked);
    }
    Ok(())
}

/// The wall clock, in milliseconds since 1970. Nothing is decided by it.
fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
