//! Prints the log from an offset on, for ever, through all changes of leader.
//!
//! ```text
//! cargo run --example tail -- demo/context.toml 0
//! ```

use std::error::Error;

use sequor_client::{Client, Config, protocol::Offset};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(context), from) = (arguments.next(), arguments.next()) else {
        return Err("usage: tail CONTEXT [OFFSET]".into());
    };
    let from = from.map_or(Ok(0), |from| from.parse())?;
    let client = Client::connect(&Config::load(context)?).await?;
    let mut tail = client.tail(Offset(from)).await?;
    loop {
        let entry = tail.next().await?;
        let value = entry.record.value.unwrap_or_default();
        println!("{}\t{}\t{}", entry.offset, entry.producer, String::from_utf8_lossy(&value));
    }
}
