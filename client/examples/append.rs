//! Appends its standard input, line by line, each exactly once: run it again after any crash, and it goes on where the
//! log ends.
//!
//! ```text
//! cargo run --example append -- demo/context.toml orders < orders.txt
//! ```

use std::error::Error;

use sequor_client::{Acknowledgement, AppendError, Client, Config, Receipt, Record};
use tokio::{
    io::{AsyncBufReadExt, BufReader, stdin},
    sync::mpsc,
};

/// Outcomes that may wait to be printed. Count.
const OUTCOMES_MAX: usize = 100_000;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(context), Some(name)) = (arguments.next(), arguments.next()) else {
        return Err("usage: append CONTEXT PRODUCER < INPUT".into());
    };
    let client = Client::connect(&Config::load(context)?).await?;
    let producer = client.producer(name).keep_numbers().open().await?;

    // The number of a line is its number in the input: what is written already is known by counting.
    let written = producer.opened().next.0;
    let mut lines = BufReader::new(stdin()).lines();
    for number in 0..written {
        lines.next_line().await?.ok_or_else(|| format!("the input has only {number} lines"))?;
    }

    let (outcomes, mut queue) = mpsc::channel::<Acknowledgement>(OUTCOMES_MAX);
    let printer = tokio::spawn(async move {
        let mut records = 0;
        while let Some(outcome) = queue.recv().await {
            let receipt: Receipt = outcome.await?;
            records += u64::from(receipt.records);
        }
        Ok::<u64, AppendError>(records)
    });
    while let Some(line) = lines.next_line().await? {
        outcomes.send(producer.append(Record::new(line)).await?).await?;
    }
    drop(outcomes);
    println!("{written} lines were there, {} were written", printer.await??);
    client.close().await;
    Ok(())
}
