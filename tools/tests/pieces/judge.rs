//! What must hold for the pieces of any input. Called by a test, and by the fuzz target `cli_pieces`.

use clap::Parser as _;
use tokio::io::BufReader;

use sequor_client::protocol::batch::BatchBuilder;

use crate::{
    form::Form,
    pieces::{Piece, PieceError, Pieces},
};

/// Takes a form as the command line does.
#[derive(clap::Parser)]
struct Command {
    #[command(flatten)]
    form: Form,
}

const SEPARATORS: [Option<&str>; 4] = [None, Some(":"), Some(r"\0"), Some("→")];

/// The input after its first byte, which says in which form it is, and how much of it arrives at once.
pub(crate) fn judge(data: &[u8]) {
    let Some((&how, input)) = data.split_first() else { return };
    let mut words = vec!["append"];
    if how & 1 != 0 {
        words.push("--length-prefixed");
    }
    if let Some(separator) = SEPARATORS[usize::from(how >> 1 & 3)] {
        words.extend(["--key-separator", separator]);
    }
    let form = Command::try_parse_from(words).expect("these are flags of the command").form;
    let (pieces, error) = read(&form, input, 1 + usize::from(how >> 3) * 5);
    let whole = read(&form, input, 1 << 20);
    assert_eq!(
        (&pieces, told(error.as_ref())),
        (&whole.0, told(whole.1.as_ref())),
        "it makes no difference how it arrives"
    );
    let mut again = Vec::new();
    for piece in &pieces {
        let record = piece.record(0);
        BatchBuilder::new().push(&record).expect("every piece fits a batch");
        form.write(&record, &mut again);
    }
    match error {
        None => assert_eq!(again, input, "every input comes back byte for byte"),
        Some(error) => assert!(input.starts_with(&again), "what was read before {error} comes back"),
    }
}

fn told(error: Option<&PieceError>) -> Option<String> {
    error.map(ToString::to_string)
}

fn read(form: &Form, input: &[u8], capacity: usize) -> (Vec<Piece>, Option<PieceError>) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime without a driver");
    runtime.block_on(async {
        let mut pieces = Pieces::new(BufReader::with_capacity(capacity, input), form.clone());
        let mut all = Vec::new();
        loop {
            match pieces.next().await {
                Ok(Some(piece)) => all.push(piece),
                Ok(None) => return (all, None),
                Err(error) => return (all, Some(error)),
            }
            assert_eq!(pieces.number(), all.len() as u64, "pieces are numbered from 0");
        }
    })
}
