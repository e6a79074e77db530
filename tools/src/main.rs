//! `sequor`: one binary for everything a user does with one replicated log.
//!
//! | file | what the user gets |
//! |---|---|
//! | `cli.rs` | the command line: global flags, the list of commands |
//! | `certs.rs`, `authority.rs` | `certs init`: a cluster's certificates, identities and configuration |
//! | `serve.rs` | `serve`: one broker |
//! | `append.rs`, `lines.rs`, `witness.rs` | `append`: the lines of a file, each exactly once |
//! | `tail.rs` | `tail`: the log, as bytes or as JSON |
//! | `status.rs` | `status`: what each broker says of itself |
//! | `quickstart/` | `quickstart`: all of it, on a cluster of its own, with a leader killed half way |
//! | `context.rs` | which cluster a command talks to |
//! | `exit.rs`, `output.rs`, `logging.rs` | exit codes, stdout, stderr |
//!
//! Data goes to stdout, all else to stderr. `main` is glue: it parses, runs one command and turns what came of it
//! into an exit code.

mod authority;
mod certs;
mod cli;
mod context;
mod exit;
mod lines;
mod logging;
mod output;
mod serve;
mod witness;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};
use exit::{Exit, Failure};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = logging::start(&cli).and_then(|()| run(cli));
    match outcome {
        Ok(()) => Exit::Ok.into(),
        Err(failure) => failure.report(),
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        Command::Certs(args) => certs::run(args),
        Command::Serve(args) => serve::run(args),
    }
}
