//! The driver of the peers: one closed loop for all of them, in one thread, as the client of `sequor bench append` is.
//!
//! A point is *batch x in flight*: so many requests are on their way all the time, each with so many records. What a
//! request with more than one record is, each system has its own idea of:
//!
//! | `--how` | etcd | NATS | ZooKeeper | Kafka |
//! |---|---|---|---|---|
//! | `each` | a put for each record | a publish for each record | a setData for each record | a message for each record, which its library puts into batches |
//! | `txn` | one transaction of puts | one atomic batch (2.12 and later) | one multi of setData | - |
//! | `value` | one put of all the bytes | one publish of all the bytes | one setData of all the bytes | - |
//!
//! A request is answered when all of its records are. `value` is the cheapest by far, and none that could be told from
//! outside as records: it shows what the system's log can do.
//!
//! Each is asked at its best: plaintext, at the leader, keys that are written again and again so that its state stays
//! small.
//!
//! | file | noun |
//! |---|---|
//! | `load.rs` | the closed loop |
//! | `etcd.rs`, `nats.rs`, `zookeeper.rs`, `kafka.rs` | a request |

#[path = "../../../src/cpu.rs"]
mod cpu;
mod etcd;
#[path = "../../../src/figure.rs"]
mod figure;
#[cfg(feature = "kafka")]
mod kafka;
mod load;
mod nats;
#[path = "../../../src/point.rs"]
mod point;
mod zookeeper;

use std::{process::ExitCode, time::Duration};

use bytes::Bytes;
use clap::{Parser, ValueEnum};

use self::{
    figure::{Figure, Figures},
    load::{Load, PeerError},
    point::Point,
};

/// Measures a peer that runs already, and prints what `sequor bench append -o json` prints.
#[derive(Debug, Parser)]
#[command(
    name = "peer-driver",
    after_help = "\
Examples:
  peer-driver etcd --endpoint 127.0.0.1:2379,127.0.0.1:22379,127.0.0.1:32379 --point 1x1,1x256
  peer-driver etcd --endpoint 127.0.0.1:2379 --point 100x16 --how txn --seconds 30
  peer-driver kafka --endpoint 127.0.0.1:9092 --point 1000x16 --flush-messages 1"
)]
struct Cli {
    /// Which system it is.
    system: System,

    /// Where its nodes listen for clients: host:port, by commas.
    #[arg(long, value_delimiter = ',', required = true)]
    endpoint: Vec<String>,

    /// Where to measure: records of a request, `x`, requests in flight. More than one by commas.
    #[arg(long, value_delimiter = ',', default_value = "1x1")]
    point: Vec<Point>,

    /// What a request with more than one record is.
    #[arg(long, default_value = "each")]
    how: How,

    /// Bytes of a record.
    #[arg(long, default_value = "128")]
    size: usize,

    /// How long each point is measured. Seconds.
    #[arg(long, default_value = "5", value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,

    /// How long it is warmed up before. Seconds.
    #[arg(long, default_value = "2", value_parser = clap::value_parser!(u64).range(0..=600))]
    warm_up: u64,

    /// The delay that is in the links, there and back: it is only written down. Microseconds.
    #[arg(long, default_value = "0")]
    rtt_us: u64,

    /// Processes whose CPU time is counted: the nodes.
    #[arg(long, value_delimiter = ',')]
    process: Vec<u32>,

    /// Kafka: sync each so many messages (`flush.messages` of the topic). By default never.
    #[arg(long)]
    flush_messages: Option<u64>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum System {
    Etcd,
    Nats,
    Zookeeper,
    Kafka,
}

/// What a request with more than one record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum How {
    /// A request of the system for each record.
    Each,
    /// One request that writes all records, or none.
    Txn,
    /// One record with the bytes of all.
    Value,
}

/// What a request writes.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) how: How,
    pub(crate) point: Point,
    /// One record.
    pub(crate) record: Bytes,
    /// As many bytes as all records of a request have.
    pub(crate) whole: Bytes,
}

impl Shape {
    fn new(how: How, point: Point, size: usize) -> Self {
        let all = usize::try_from(point.batch).unwrap_or(usize::MAX).saturating_mul(size);
        // Of one record there is nothing to put together.
        let how = if point.batch == 1 { How::Each } else { how };
        Self { how, point, record: vec![0x5a; size].into(), whole: vec![0x5a; all].into() }
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let figures = runtime.map_err(PeerError::Runtime).and_then(|runtime| runtime.block_on(measure(&cli)));
    match figures {
        Ok(results) => {
            println!("{}", serde_json::to_string(&Figures { results }).expect("it has string keys"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("peer-driver: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(cli: &Cli) -> Result<Vec<Figure>, PeerError> {
    let mut figures = Vec::new();
    for point in &cli.point {
        let shape = Shape::new(cli.how, *point, cli.size);
        let load = Load {
            point: *point,
            size: cli.size as u64,
            rtt_us: cli.rtt_us,
            warm_up: Duration::from_secs(cli.warm_up),
            time: Duration::from_secs(cli.seconds),
            processes: cli.process.clone(),
        };
        figures.push(match cli.system {
            System::Etcd => load.run(&etcd::Etcd::connect(&cli.endpoint, shape).await?).await?,
            System::Nats => load.run(&nats::Nats::connect(&cli.endpoint, shape).await?).await?,
            System::Zookeeper => {
                load.run(&zookeeper::ZooKeeper::connect(&cli.endpoint, shape).await?).await?
            }
            #[cfg(feature = "kafka")]
            System::Kafka => {
                load.run(&kafka::Kafka::connect(&cli.endpoint, shape, cli.flush_messages).await?).await?
            }
            #[cfg(not(feature = "kafka"))]
            System::Kafka => return Err(PeerError::cannot("use Kafka", "this driver was built without it")),
        });
    }
    Ok(figures)
}
