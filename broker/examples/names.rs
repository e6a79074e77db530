//! What a producer's name costs: bytes of memory for each, and how long a broker takes to start again with all of them.
//!
//! ```text
//! cargo run --release -p sequor-broker --features testing --example names -- 1000000
//! ```
//!
//! One broker on a real disk. Every name is opened, and writes one record, so that each has an epoch and a batch that is
//! remembered. A broker reads its whole log when it starts, so the time grows with the log too.

use std::error::Error;
use std::fs;
use std::time::{Duration, Instant};

use sequor_broker::testing::Cluster;
use sequor_client::protocol::BrokerId;
use sequor_client::{Client, Record};
use tokio::task::JoinSet;

/// Names that are opened at once. Count.
const AT_ONCE: u64 = 256;
/// For the broker to have read its log again.
const RESTART_TIMEOUT: Duration = Duration::from_secs(600);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let names: u64 = std::env::args().nth(1).unwrap_or_else(|| "10000".into()).parse()?;
    let cluster = Cluster::start(1).await?;
    let client = Client::connect(&cluster.client_config()).await?;
    open(&client, 0..AT_ONCE.min(names)).await?;
    let (before, begun) = (anonymous_bytes()?, Instant::now());
    open(&client, AT_ONCE.min(names)..names).await?;
    let (took, grown) = (begun.elapsed(), anonymous_bytes()?.saturating_sub(before));
    client.close().await;
    println!("{names} names opened, one record each, in {:.1} s", took.as_secs_f64());
    println!("{} bytes of memory for each", grown / names.max(1));

    cluster.kill(BrokerId(1)).await?;
    let begun = Instant::now();
    cluster.restart(BrokerId(1)).await?;
    let client = Client::connect(&cluster.client_config()).await?;
    let end = tokio::time::timeout(RESTART_TIMEOUT, async {
        loop {
            if let Ok(end) = client.end().await {
                return end;
            }
        }
    });
    let end = end.await?;
    println!(
        "{:.1} s from the start of the broker to its first answer, with {} records",
        begun.elapsed().as_secs_f64(),
        end.end
    );
    cluster.stop().await?;
    Ok(())
}

/// Opens these names, many at once; each writes one record.
async fn open(client: &Client, numbers: std::ops::Range<u64>) -> Result<(), Box<dyn Error>> {
    let mut workers = JoinSet::new();
    for worker in 0..AT_ONCE {
        let (client, mine) =
            (client.clone(), numbers.clone().skip(worker as usize).step_by(AT_ONCE as usize));
        workers.spawn(async move {
            for number in mine {
                let producer = client.producer(format!("tenant-{number:08}/orders")).open().await?;
                producer.append(Record::new("one")).await?.await?;
            }
            Ok::<(), Box<dyn Error + Send + Sync>>(())
        });
    }
    while let Some(worker) = workers.join_next().await {
        worker?.map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Memory of this process that is not the page cache's.
fn anonymous_bytes() -> Result<u64, Box<dyn Error>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .ok_or("no RssAnon in /proc/self/status")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}
