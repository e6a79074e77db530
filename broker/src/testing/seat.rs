//! One broker in a thread of its own, with a runtime of its own: as near to a process as a thread can get.
//!
//! ```text
//!   Cluster ── Stop, Pause, Die ──►  thread: runtime ─► broker::io, the same that `serve` runs
//!           ◄── Board: status after each pass, and how it ended
//! ```
//!
//! | order | as | what happens |
//! |---|---|---|
//! | `Stop` | SIGTERM | the broker hands leadership over, answers, syncs, and says goodbye |
//! | `Die` | SIGKILL | its runtime is dropped without being polled again: no packet leaves, nothing more is written |
//! | `Pause` | SIGSTOP | the thread blocks where it is until it is resumed; what comes waits in the socket |
//!
//! What a disk is doing at the moment of an order it does to the end, as it would for a process.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    rc::Rc,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc as blocking},
    thread,
    time::Duration,
};

use quinn::{AsyncUdpSocket, Runtime as _, TokioRuntime};
use sequor_client::{
    protocol::{BrokerId, Status},
    transport,
};
use tokio::sync::{mpsc, oneshot};

use super::{
    board::{Board, State},
    network::Network,
    socket::LossySocket,
};
use crate::{
    config::Config,
    io::{
        ServeError,
        host::{DiskFailure, Host},
        new_runtime, run_on,
    },
};

/// What a thread is to do.
#[derive(Debug)]
enum Order {
    /// As SIGTERM does.
    Stop,
    /// As SIGSTOP does. Answered by the last thing that the thread does before it stands still.
    Pause(oneshot::Sender<()>),
    /// As SIGKILL does.
    Die,
}

/// How a broker is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// As by SIGTERM.
    Stop,
    /// As by SIGKILL.
    Die,
}

/// What a broker's thread begins with.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) id: BrokerId,
    pub(super) config: Config,
    pub(super) network: Arc<Network>,
    pub(super) board: Arc<Board>,
    /// A socket that is bound already; without it the broker binds its own.
    pub(super) socket: Option<UdpSocket>,
}

/// A broker's thread. To drop it tells the broker to die, and waits for nothing.
#[derive(Debug)]
pub(super) struct Seat {
    orders: mpsc::UnboundedSender<Order>,
    gate: Arc<Gate>,
    /// Disconnected when the thread is about to end.
    alive: blocking::Receiver<()>,
    thread: thread::JoinHandle<()>,
}

impl Seat {
    /// Starts the thread. How it does is on the board from now on.
    ///
    /// # Errors
    ///
    /// The system gives no thread.
    pub(super) fn start(start: Start) -> io::Result<Self> {
        let (orders, todo) = mpsc::unbounded_channel();
        let (life, alive) = blocking::channel();
        let gate = Arc::new(Gate::default());
        let gate_too = Arc::clone(&gate);
        start.board.set(start.id, State::Opening);
        let name = format!("sequor-broker-{}", start.id);
        let thread = thread::Builder::new().name(name).spawn(move || {
            let _until_the_end: blocking::Sender<()> = life;
            live(start, todo, &gate_too);
        })?;
        Ok(Self { orders, gate, alive, thread })
    }

    /// Tells the broker to end, paused or not.
    pub(super) fn end(&self, how: End) {
        let order = if how == End::Stop { Order::Stop } else { Order::Die };
        // A thread that has ended takes no orders.
        let _ended = self.orders.send(order);
        self.gate.open();
    }

    /// Tells the thread to stand still. What is given back is answered when it does, and dropped if it never will.
    pub(super) fn pause(&self) -> oneshot::Receiver<()> {
        let (standing, stands) = oneshot::channel();
        self.gate.close();
        let _ended = self.orders.send(Order::Pause(standing));
        stands
    }

    /// Lets the thread go on.
    pub(super) fn resume(&self) {
        self.gate.open();
    }

    /// Whether the thread stands still, or will as soon as it can.
    pub(super) fn is_paused(&self) -> bool {
        *self.gate.closed()
    }

    /// Waits for the end of a thread that was told to end, for no longer than `patience`. Blocks.
    pub(super) fn join(self, patience: Duration) -> Result<(), StillAlive> {
        match self.alive.recv_timeout(patience) {
            Err(blocking::RecvTimeoutError::Timeout) => Err(StillAlive),
            Ok(()) | Err(blocking::RecvTimeoutError::Disconnected) => {
                // One that panicked has said so, on the board and on stderr.
                let _panicked = self.thread.join();
                Ok(())
            }
        }
    }
}

/// The thread did not end in time: it goes on beside the process, until its disk answers.
#[derive(Debug)]
pub(super) struct StillAlive;

/// Where a thread stands still.
#[derive(Debug, Default)]
struct Gate {
    closed: Mutex<bool>,
    moved: Condvar,
}

impl Gate {
    fn close(&self) {
        *self.closed() = true;
    }

    fn open(&self) {
        *self.closed() = false;
        self.moved.notify_all();
    }

    /// Blocks while it is closed.
    fn pass(&self) {
        let passed = self.moved.wait_while(self.closed(), |closed| *closed);
        drop(passed.unwrap_or_else(PoisonError::into_inner));
    }

    fn closed(&self) -> MutexGuard<'_, bool> {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The whole life of the thread.
fn live(start: Start, orders: mpsc::UnboundedReceiver<Order>, gate: &Gate) {
    let Start { id, config, network, board, socket } = start;
    let _in_every_line = tracing::info_span!("broker", %id).entered();
    let mut obituary = Obituary { id, board: Arc::clone(&board), ended: None };
    let host = Tenant { id, network, board, socket: Mutex::new(socket) };
    obituary.ended = Some(serve(host, &config, orders, gate));
}

fn serve(
    host: Tenant,
    config: &Config,
    orders: mpsc::UnboundedReceiver<Order>,
    gate: &Gate,
) -> Result<(), ServeError> {
    let runtime = new_runtime()?;
    let (stop, stopped) = oneshot::channel();
    let broker = run_on(Rc::new(host), config, async {
        if stopped.await.is_err() {
            // Nobody is left who could tell it to stop: it is about to die.
            std::future::pending::<()>().await;
        }
    });
    let ended = runtime.block_on(async {
        tokio::select! {
            ended = broker => ended,
            () = obey(orders, stop, gate) => Ok(()),
        }
    });
    // What is left in it is dropped without being polled again: no packet leaves.
    drop(runtime);
    ended
}

/// Carries out orders; done when the broker is to die.
async fn obey(mut orders: mpsc::UnboundedReceiver<Order>, stop: oneshot::Sender<()>, gate: &Gate) {
    let mut stop = Some(stop);
    while let Some(order) = orders.recv().await {
        match order {
            Order::Stop => {
                // Told twice, it stops once.
                if let Some(stop) = stop.take() {
                    let _ended = stop.send(());
                }
            }
            Order::Pause(standing) => {
                let _nobody_waits = standing.send(());
                gate.pass();
            }
            Order::Die => return,
        }
    }
}

/// Says on the board how the thread ended, also when it panicked.
struct Obituary {
    id: BrokerId,
    board: Arc<Board>,
    ended: Option<Result<(), ServeError>>,
}

impl Drop for Obituary {
    fn drop(&mut self) {
        let ended = self.ended.take().unwrap_or(Err(ServeError::Panicked));
        self.board.set(self.id, State::Ended(ended.map_err(Arc::new)));
    }
}

/// The host of one broker among others.
#[derive(Debug)]
struct Tenant {
    id: BrokerId,
    network: Arc<Network>,
    board: Arc<Board>,
    socket: Mutex<Option<UdpSocket>>,
}

impl Host for Tenant {
    fn socket(&self, listen: SocketAddr) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let bound = self.socket.lock().unwrap_or_else(PoisonError::into_inner).take();
        let socket = bound.map_or_else(|| transport::socket(listen), Ok)?;
        let inner = TokioRuntime.wrap_udp_socket(socket)?;
        Ok(Arc::new(LossySocket { broker: self.id, network: Arc::clone(&self.network), inner }))
    }

    fn observe(&self, status: &Status) {
        self.board.observe(status);
    }

    fn disk_failure(&self) -> DiskFailure {
        DiskFailure::Broker
    }
}
