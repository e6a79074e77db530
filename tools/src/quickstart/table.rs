//! The table: confirmed records per second against the size of a batch.
//!
//! Each row is a producer of its own that keeps a fixed number of batches in flight for a fixed time. A batch counts
//! when it is confirmed: when a majority of the brokers has it on stable storage.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use comfy_table::{CellAlignment, Table, presets};
use hdrhistogram::Histogram;
use serde::Serialize;
use thiserror::Error;

use sequor_client::{
    Acknowledgement, Client,
    protocol::{batch::BatchBuilder, limits::BATCH_BYTES_MAX},
};

use crate::{
    exit::{Exit, Failure, Verdict},
    words::{count, grouped},
};

/// Significant digits of the latency histograms.
const DIGITS: u8 = 3;
/// Longest latency that a histogram tells from longer ones. Microseconds.
const LATENCY_US_MAX: u64 = 600_000_000;

/// What is measured in one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Load {
    /// Records in a batch.
    pub(crate) batch: usize,
    /// Batches in flight.
    pub(crate) in_flight: usize,
    /// Bytes of a record's value.
    pub(crate) record_bytes: usize,
    /// For how long batches are sent.
    pub(crate) time: Duration,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Row {
    /// Records in a batch.
    pub(crate) batch: usize,
    /// Batches in flight.
    pub(crate) in_flight: usize,
    /// Bytes of a record's value.
    pub(crate) record_bytes: usize,
    /// Records that were confirmed.
    pub(crate) records: u64,
    /// From the first batch sent to the last one confirmed. Seconds.
    pub(crate) seconds: f64,
    /// Records confirmed per second.
    pub(crate) records_per_second: f64,
    /// Median time from sending a batch to its confirmation. Milliseconds.
    pub(crate) p50_ms: f64,
    /// 99 of 100 batches are confirmed within this time. Milliseconds.
    pub(crate) p99_ms: f64,
}

/// Loads the cluster in one way, with a producer of its own, and measures.
///
/// # Errors
/// If the producer cannot be opened, or a batch is not confirmed.
pub(crate) async fn measure(client: &Client, load: Load) -> Result<Row, Failure> {
    let Load { batch, in_flight, record_bytes, time } = load;
    let name = format!("quickstart/table/{batch}x{in_flight}");
    let producer = client.producer(name).in_flight(in_flight).open().await?;
    let value = vec![b'x'; record_bytes];
    let mut latencies =
        Histogram::<u64>::new_with_max(LATENCY_US_MAX, DIGITS).expect("the bounds are possible");
    let mut flying: VecDeque<(Instant, Acknowledgement)> = VecDeque::with_capacity(in_flight);
    let mut records = 0;
    let start = Instant::now();
    loop {
        while flying.len() < in_flight && start.elapsed() < time {
            let builder = filled(batch, &value)?;
            flying.push_back((Instant::now(), producer.send_batch(builder).await?));
        }
        let Some((sent, acknowledgement)) = flying.pop_front() else { break };
        records += u64::from(acknowledgement.await?.records);
        latencies.saturating_record(u64::try_from(sent.elapsed().as_micros()).unwrap_or(u64::MAX));
    }
    let seconds = start.elapsed().as_secs_f64();
    let ms = |quantile| latencies.value_at_quantile(quantile) as f64 / 1e3;
    let (p50_ms, p99_ms) = (ms(0.5), ms(0.99));
    let records_per_second = records as f64 / seconds;
    Ok(Row { batch, in_flight, record_bytes, records, seconds, records_per_second, p50_ms, p99_ms })
}

fn filled(batch: usize, value: &[u8]) -> Result<BatchBuilder, TableError> {
    let mut builder = BatchBuilder::new();
    for _ in 0..batch {
        builder.push_value(None, value, 0).map_err(|_| TableError { batch, record_bytes: value.len() })?;
    }
    Ok(builder)
}

/// So many records of this size are no batch.
#[derive(Debug, Error)]
#[error(
    "{} of {} do not fit one batch of {BATCH_BYTES_MAX} bytes",
    count(*.batch as u64, "record"),
    count(*.record_bytes as u64, "byte")
)]
pub(crate) struct TableError {
    batch: usize,
    record_bytes: usize,
}

impl Verdict for TableError {
    fn exit(&self) -> Exit {
        Exit::Usage
    }
}

/// The rows as a table for people.
pub(crate) fn render(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["batch", "in flight", "records/s", "MB/s", "p50 ms", "p99 ms"]);
    for row in rows {
        let megabytes = row.records_per_second * row.record_bytes as f64 / 1e6;
        table.add_row([
            grouped(row.batch as u64),
            grouped(row.in_flight as u64),
            grouped(row.records_per_second as u64),
            format!("{megabytes:.1}"),
            format!("{:.2}", row.p50_ms),
            format!("{:.2}", row.p99_ms),
        ]);
    }
    for column in table.column_iter_mut() {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.lines().map(|line| format!("  {}\n", line.trim_end())).collect()
}
