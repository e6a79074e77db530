//! How to test your own code against everything that goes wrong, in virtual time: a job that writes a report each hour,
//! under a name, through dead leaders, power cuts and a network that loses a tenth.
//!
//! The code under test is [`report_hourly`]. The rest is the test of it, to be copied into your own `tests/`. A day of it
//! takes a moment, and each seed is another day; the same seed is always the same day.
//!
//! ```text
//! cargo test -p sequor-broker --example virtual_test
//! cargo run -p sequor-broker --features virtual --example virtual_test
//! ```

use std::{error::Error, time::Duration};

use sequor_broker::testing::{SimulatedCluster, Weather, simulate};
use sequor_client::{Client, Record, protocol::Offset};
use tokio::time::sleep;

type Outcome<T> = Result<T, Box<dyn Error>>;

const HOUR: Duration = Duration::from_secs(3600);
/// Reports in a day. Count.
const REPORTS: u64 = 24;
/// How long a broker is down.
const OUTAGE: Duration = Duration::from_secs(10);
/// Pause of the job after an error.
const PAUSE: Duration = Duration::from_secs(1);

/// The code under test: writes one report each hour, each once, also when it is started again in between.
///
/// A report's number is its number in the producer's stream, so the name itself knows which one comes next.
async fn report_hourly(client: &Client) {
    while let Err(error) = attempt(client).await {
        eprintln!("the job goes on after: {error}");
        sleep(PAUSE).await;
    }
}

async fn attempt(client: &Client) -> Outcome<()> {
    let producer = client.producer("reports").keep_numbers().open().await?;
    for number in producer.opened().next.0..REPORTS {
        producer.append(Record::new(format!("report {number}"))).await?.await?;
        sleep(HOUR).await;
    }
    Ok(())
}

/// The job runs for a day in which much goes wrong, is killed at noon, and started again.
async fn a_bad_day(cluster: SimulatedCluster) -> Outcome<()> {
    let client = cluster.client().await?;
    let trouble = tokio::spawn(trouble(cluster.clone()));
    tokio::select! {
        biased;
        () = report_hourly(&client) => panic!("it was to take a day"),
        () = sleep(12 * HOUR) => {}
    }
    report_hourly(&cluster.client().await?).await;
    trouble.abort();

    let mut tail = client.tail(Offset(0)).await?;
    for number in 0..REPORTS {
        let value = tail.next().await?.record.value;
        assert_eq!(value.as_deref(), Some(format!("report {number}").as_bytes()));
    }
    assert_eq!(client.end().await?.end, Offset(REPORTS), "each is there once");
    Ok(())
}

/// Whatever goes wrong, for as long as nobody stops it.
async fn trouble(cluster: SimulatedCluster) {
    let all = cluster.brokers();
    for &victim in all.iter().cycle() {
        // Around each full hour, when the job writes.
        cluster.set_weather(&Weather::default().lost(100));
        let dead = cluster.kill_leader().await.expect("two of three are always there");
        sleep(OUTAGE).await;
        cluster.restart(dead).expect("it was killed");
        cluster.cut_power(victim).expect("it is one of them");
        sleep(OUTAGE).await;
        cluster.restart(victim).expect("its power was cut");
        cluster.set_weather(&Weather::default());
        sleep(HOUR - 2 * OUTAGE).await;
    }
}

fn main() -> Outcome<()> {
    for seed in 0..10 {
        simulate(seed, 3, a_bad_day)?;
        println!("seed {seed}: each report is there once");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_report_is_written_once_on_a_bad_day() -> Outcome<()> {
        (0..5).try_for_each(|seed| simulate(seed, 3, a_bad_day))
    }
}
