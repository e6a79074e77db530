//! A client's handle: what a program holds of its cluster.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    time::{Instant, timeout},
};

use crate::{
    command::{Command, Identity, Question, Released},
    config::Config,
    connection::{Endpoints, Network},
    driver::{self, Health},
    error::{CallError, ConnectError, TailError},
    producer::OpenProducer,
    protocol::{
        self, BrokerId, End, Epoch, List, Listed, Member, Offset, ProducerId, Resolve, Resolved, Retire,
        Retired, Sequence, Status,
    },
    tail::{DELIVERIES_MAX, Tail},
    tls,
    transport::{self, Profile},
};

/// Commands that wait for the driver. At the limit callers wait. Count.
const COMMANDS_MAX: usize = 1024;

/// A cluster, as long as a program uses it. Cheap to clone; all clones share their connections.
///
/// It finds the leader, and finds it again when it changes. When the last handle (client, producer or tail) is gone,
/// its task ends after the outcome of what is in flight.
///
/// ```no_run
/// use sequor_client::{Client, Config, Record, protocol::Offset};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::connect(&Config::load("demo/context.toml")?).await?;
///
/// // A producer is a durable name. To open it fences whoever had it before.
/// let producer = client.producer("orders").open().await?;
/// let receipt = producer.append(Record::new("hello").with_key("greeting")).await?.await?;
/// println!("written at offset {}", receipt.first_offset);
///
/// let mut tail = client.tail(Offset(0)).await?;
/// let first = tail.next().await?;
/// println!("{} {:?}", first.offset, first.record.value);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: Config,
    commands: mpsc::Sender<Command>,
    released: mpsc::UnboundedSender<Released>,
    health: watch::Receiver<Health>,
}

impl Client {
    /// Connects to the first broker that answers; the leader is found from there. Must be called in a tokio runtime,
    /// of either flavour, with time and I/O enabled.
    ///
    /// # Errors
    ///
    /// [`ConnectError`], at the latest after the configured deadline.
    pub async fn connect(config: &Config) -> Result<Self, ConnectError> {
        let config = config.clone().within_limits();
        if config.brokers.is_empty() {
            return Err(ConnectError::NoBroker);
        }
        let network = network(&config)?;
        let (commands, command_queue) = mpsc::channel(COMMANDS_MAX);
        let (released, released_queue) = mpsc::unbounded_channel();
        let (healthy, health) = watch::channel(Health::default());
        driver::start(&config, network, command_queue, released_queue, healthy);
        let client = Self { shared: Arc::new(Shared { config, commands, released, health }) };
        client.wait_for_a_broker().await?;
        Ok(client)
    }

    async fn wait_for_a_broker(&self) -> Result<(), ConnectError> {
        let (config, mut health) = (&self.shared.config, self.shared.health.clone());
        let begun = Instant::now();
        let connected = timeout(config.deadline, health.wait_for(|health| health.connected)).await;
        if matches!(connected, Ok(Ok(_))) {
            return Ok(());
        }
        let address = |member: &Member| format!("broker {} at {}", member.id, member.address);
        let tried = config.brokers.iter().map(address).collect::<Vec<_>>().join(", ");
        let seconds = begun.elapsed().as_secs_f64();
        Err(ConnectError::Unreachable { seconds, tried, source: self.shared.health.borrow().trouble.clone() })
    }

    /// A producer of this name, not open yet. 1 to 255 bytes.
    pub fn producer(&self, name: impl Into<String>) -> OpenProducer {
        OpenProducer::new(self.clone(), Identity::Name(name.into()))
    }

    /// A producer without a name, for who does not come back: it is bound to a session that is kept alive as long as the
    /// producer is open here, and ends when nobody has kept it alive for `ttl` (500 ms to an hour). What it writes is
    /// written once, through all retries and changes of leader, but nobody can go on under it; what comes late under a
    /// session that is over is refused.
    pub fn session(&self, ttl: Duration) -> OpenProducer {
        OpenProducer::new(self.clone(), Identity::Session(ttl))
    }

    /// The log from an offset on. At the end it waits for what comes; an offset beyond the end ends it.
    ///
    /// # Errors
    ///
    /// [`TailError::Closed`]. What a broker may refuse is told by the tail.
    pub async fn tail(&self, from: Offset) -> Result<Tail, TailError> {
        let places = Arc::new(Semaphore::new(DELIVERIES_MAX));
        let (deliveries, queue) = mpsc::unbounded_channel();
        let command = |reply| Command::Tail { from, places, deliveries, reply };
        let key = self.call(command).await.ok_or(TailError::Closed)?;
        Ok(Tail::new(self.clone(), key, from, queue))
    }

    /// Where the log ends now: nothing that was acknowledged before this call lies beyond it.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn end(&self) -> Result<End, CallError> {
        self.ask(Question::End).await
    }

    /// What is known of a producer's name; none if it was never opened. Fences nobody.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn lookup(&self, name: impl Into<String>) -> Result<Option<protocol::Producer>, CallError> {
        let name = name.into();
        self.ask(|reply| Question::Lookup(name, reply)).await
    }

    /// A page of the table of producers, in the order of their names, after the name `after`: at most `limit`, and at
    /// most what one answer can hold. The last name of a page is where the next one goes on.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn producers(&self, after: Option<String>, limit: u32) -> Result<Listed, CallError> {
        self.ask(|reply| Question::List(List { after, limit }, reply)).await
    }

    /// What became of one number of a producer. If it is open and `seal` is set, it is given up, and every open number
    /// before it: none of them can ever be written then. That takes the producer's current epoch.
    ///
    /// # Errors
    ///
    /// [`CallError`]. [`CallError::Unknown`] only with `seal`.
    pub async fn resolve(
        &self,
        producer: ProducerId,
        epoch: Epoch,
        sequence: Sequence,
        seal: bool,
    ) -> Result<Resolved, CallError> {
        let resolve = Resolve { producer, epoch, sequence, seal };
        self.ask(|reply| Question::Resolve(resolve, reply)).await
    }

    /// Closes a producer's name for ever: nothing can be written under it again, and nobody can open it again. The name
    /// keeps its place in the table of producers. `epoch` must be the current one; repeating the call is harmless.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn retire(&self, producer: ProducerId, epoch: Epoch) -> Result<Retired, CallError> {
        self.ask(|reply| Question::Retire(Retire { producer, epoch }, reply)).await
    }

    /// What a broker says of itself. Answered by each broker alone, never by a quorum.
    ///
    /// # Errors
    ///
    /// [`CallError`]; a broker that cannot be reached is [`CallError::Unanswered`] after `patience`.
    pub async fn status(&self, broker: BrokerId, patience: Duration) -> Result<Status, CallError> {
        let deadline = Instant::now() + patience;
        let command = |reply| Command::Ask { question: Question::Status(broker, reply), deadline };
        self.call(command).await.unwrap_or(Err(CallError::Closed))
    }

    /// The cluster's brokers as far as they are known here: from the configuration, and from the brokers themselves.
    ///
    /// # Errors
    ///
    /// [`CallError::Closed`].
    pub async fn brokers(&self) -> Result<Vec<Member>, CallError> {
        self.call(Command::Brokers).await.ok_or(CallError::Closed)
    }

    /// Closes all connections and waits, for a moment, until the brokers have heard of it. What is in flight is
    /// unknown then; all handles are of no further use.
    pub async fn close(self) {
        let _closed_before = self.call(Command::Close).await;
    }

    async fn ask<T>(
        &self,
        question: impl FnOnce(oneshot::Sender<Result<T, CallError>>) -> Question,
    ) -> Result<T, CallError> {
        let deadline = Instant::now() + self.shared.config.deadline;
        let command = |reply| Command::Ask { question: question(reply), deadline };
        self.call(command).await.unwrap_or(Err(CallError::Closed))
    }

    pub(crate) fn config(&self) -> &Config {
        &self.shared.config
    }

    /// Gives the driver something to do; none if it is gone.
    pub(crate) async fn send(&self, command: Command) -> Option<()> {
        self.shared.commands.send(command).await.ok()
    }

    /// The same, and waits for the reply.
    pub(crate) async fn call<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.send(command(reply)).await?;
        answer.await.ok()
    }

    /// Says that a handle is gone.
    pub(crate) fn release(&self, released: Released) {
        // A driver that is gone holds nothing.
        let _gone = self.shared.released.send(released);
    }
}

fn network(config: &Config) -> Result<Network, ConnectError> {
    #[cfg(feature = "carrier")]
    if let Some(carrier) = &config.carrier {
        return Ok(Network::Carried(Arc::clone(carrier)));
    }
    let mut quic = tls::client_config(&config.tls)?;
    quic.transport_config(transport::config(Profile::Client, config.mtu));
    Ok(Network::Quic(Box::new(Endpoints::new(quic, config.mtu))))
}
