//! `sequor append`: the lines of an input, each exactly once, however often the command is run.
//!
//! The sequence of a line is its number in the input. What is already in the log is therefore known without asking for
//! each line: the producer's next sequence is the number of the first line that is missing. So a rerun
//!
//! 1. looks the producer up, without opening it: who only made a typing error fences nobody;
//! 2. reads past the lines that are there, comparing the last batches of the log with them (`witness.rs`);
//! 3. opens the producer, which fences an earlier run that may still be alive somewhere; what that run had on its way
//!    until then is there now, and is compared too;
//! 4. appends the rest, many batches in flight.
//!
//! A number is never given up here (sealed): it means a line. If the outcome of a batch is not known at the deadline, the
//! command says so, and running it again finds out.

use std::{
    io::IsTerminal as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use thiserror::Error;
use tokio::{
    fs::File,
    io::{AsyncRead, BufReader, stdin},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
};

use sequor_client::protocol::{
    Remembered,
    batch::{BatchBuilder, PushError},
    limits::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX, IN_FLIGHT_BATCHES_MAX},
};

use crate::{
    cli::Global,
    exit::{Exit, Failure, Verdict},
    lines::{Line, Lines},
    output::Output,
    witness::{Suspect, Witness},
};
