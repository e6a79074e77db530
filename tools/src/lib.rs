//! `sequor`: one binary for everything a user does with one replicated log.
//!
//! | file | what the user gets |
//! |---|---|
//! | `cli.rs` | the command line: global flags, the list of commands |
//! | `certs.rs` | `certs init`: a cluster's certificates, identities and configuration |
//! | `serve.rs` | `serve`: one broker |
//! | `dev.rs` | `dev`: a cluster in one process, to develop against |
//! | `append.rs`, `witness.rs`, `past.rs`, `confirmation.rs` | `append`: the lines of a file, each exactly once |
//! | `form.rs`, `pieces.rs` | how records lie in a stream of bytes, and how they are read from one |
//! | `tail.rs`, `content.rs` | `tail`: the log, as bytes or as JSON |
//! | `producer.rs` | `producer`: names and numbers, listed, shown and closed |
//! | `status.rs` | `status`: what each broker says of itself |
//! | `wal/` | `wal verify`, `wal dump`: data directories, looked at and not touched |
//! | `simulate/` | `simulate`: clusters in virtual time, attacked from seeds |
//! | `torture/` | `torture`: real processes under load and under attack, and whether every promise was kept |
//! | `bench/` | `bench`: how fast it is, and how fast it is back |
//! | `quickstart/` | `quickstart`: all of it, on a cluster of its own, with a leader killed half way |
//! | `completions.rs`, `man.rs` | `completions`, `man`: the command line, for shells and for `man` |
//! | `cluster.rs`, `place.rs`, `interruption.rs` | a cluster of processes, where it lives, and the signal that ends it |
//! | `relay/` | a network between them that delays, loses, doubles, reorders and cuts |
//! | `context.rs`, `remote.rs` | which cluster a command talks to, and how its answers become exit codes |
//! | `exit.rs`, `interruption.rs`, `output.rs`, `logging.rs` | exit codes, signals, stdout, stderr |
//! | `descriptors.rs` | how many files may be open |
//! | `words.rs`, `table.rs`, `visible.rs`, `shell.rs` | numbers and tables for people, text of others, paths to paste |
//!
//! Data goes to stdout, all else to stderr. [`main`] is glue: it parses, runs one command and turns what came of it
//! into an exit code.

mod append;
mod bench;
mod certs;
mod cli;
mod cluster;
mod completions;
mod confirmation;
mod content;
mod context;
mod descriptors;
mod dev;
mod exit;
mod form;
mod interruption;
mod logging;
mod man;
mod output;
mod past;
mod pieces;
mod place;
mod producer;
mod quickstart;
mod relay;
mod remote;
mod serve;
mod shell;
mod simulate;
mod status;
mod table;
mod tail;
mod torture;
mod visible;
mod wal;
mod witness;
mod words;

use std::process::ExitCode;

use tokio::runtime;

use cli::{Cli, Command};
use exit::{Exit, Failure, RuntimeError};

/// Does what the command line asks for. All that the program does.
pub fn main() -> ExitCode {
    let cli = match Cli::read() {
        Ok(cli) => cli,
        Err(exit) => return exit,
    };
    let outcome = logging::start(&cli).and_then(|()| {
        descriptors::raise_limit();
        run(cli)
    });
    match outcome {
        Ok(()) => Exit::Ok.into(),
        Err(failure) => failure.report(),
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    let global = cli.global;
    match cli.command {
        Command::Certs(args) => certs::run(args),
        Command::Serve(args) => serve::run(args),
        Command::Dev(args) => block_on(dev::run(args, &global)),
        Command::Append(args) => block_on(append::run(args, &global)),
        Command::Tail(args) => block_on(tail::run(args, &global)),
        Command::Producer(args) => block_on(producer::run(args, &global)),
        Command::Status(args) => block_on(status::run(args, &global)),
        Command::Wal(args) => block_on(wal::run(args)),
        Command::Simulate(args) => block_on(simulate::run(args)),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
        Command::Torture(args) => block_on(torture::run(args, &global)),
        Command::Bench(args) => block_on(bench::run(args, &global)),
        Command::Quickstart(args) => block_on(quickstart::run(args, &global)),
    }
}

/// Runs a command that talks to brokers, on one thread.
fn block_on(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(RuntimeError::from)?;
    let outcome = runtime.block_on(command);
    // A thread may still wait for a line from a terminal: it need not come.
    runtime.shutdown_background();
    outcome
}
