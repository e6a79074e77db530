//! The command line: the flags that every command knows, and the list of commands.
//!
//! Each command's own flags are in the file of that command. A value is taken from the flag, else from the
//! environment, else from the context or configuration file, else it is the default that the help shows. An empty
//! variable counts as not set, as it does for a broker's keys: `SEQUOR_CONTEXT= sequor status` is how a shell clears one.

use std::{
    env,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use clap::{
    Arg, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum, builder::Resettable,
};

use crate::{
    append::AppendArgs, bench::BenchArgs, certs::CertsArgs, completions::CompletionsArgs, dev::DevArgs,
    exit::Exit, man::ManArgs, output, producer::ProducerArgs, quickstart::QuickstartArgs, serve::ServeArgs,
    simulate::SimulateArgs, status::StatusArgs, tail::TailArgs, torture::TortureArgs, wal::WalArgs,
};

const EXAMPLES: &str = "\
Examples:
  sequor quickstart                                   see it work, with a leader killed half way
  sequor dev                                          a cluster to develop against, in ./sequor-dev
  seq 1000 | sequor append --producer numbers         beside it: it is found without being named
  sequor certs init demo --brokers 3                  certificates and data of a cluster
  sequor serve --config demo/broker-1.toml            run one of its brokers
  sequor --context demo/context.toml append --producer import/1 lines.txt
  sequor --context demo/context.toml tail --until-end

An environment variable that is empty counts as not set.

Exit codes:
  0 ok      3 precondition failed         5 cluster unhealthy
  1 error   4 unreachable or timed out    6 not allowed
  2 usage";

/// One replicated log for doing something exactly once.
#[derive(Debug, Parser)]
#[command(name = "sequor", version, after_help = EXAMPLES, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Cli {
    /// Reads the command line and the environment.
    ///
    /// # Errors
    /// The code to end with after help, version or wrong usage: what there is to say was said.
    pub(crate) fn read() -> Result<Self, ExitCode> {
        let mut command = without_empty_variables(Self::command());
        let matches = command.try_get_matches_from_mut(env::args_os());
        let read = matches.and_then(|mut matches| {
            Self::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
        });
        read.map_err(|said| say(&said))
    }
}

/// Prints help or version, which are data, or what is wrong with the command line; and gives the code to end with.
fn say(said: &clap::Error) -> ExitCode {
    let printed = said.print().and_then(|()| io::stdout().flush());
    match printed {
        // With stderr closed there is nobody left to tell.
        _ if said.use_stderr() => Exit::Usage.into(),
        Ok(()) => Exit::Ok.into(),
        Err(error) => output::failed(error).report(),
    }
}

/// A whole number.
///
/// # Errors
/// If it is none, or too large.
pub(crate) fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("it has to be a whole number, from 0 to {}", u64::MAX))
}

/// Lets no flag take its value from a variable that is empty.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    command.mut_args(without_empty_variable).mut_subcommands(without_empty_variables)
}

fn without_empty_variable(arg: Arg) -> Arg {
    match arg.get_env().and_then(env::var_os) {
        Some(value) if value.is_empty() => arg.env(Resettable::Reset),
        _ => arg,
    }
}

/// Flags that every command knows.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Global {
    /// Which cluster to talk to: a context file, as `certs init` writes one.
    ///
    /// Without it: ./sequor-dev/context.toml, then sequor/context.toml in the user's configuration directory.
    #[arg(long, global = true, env = "SEQUOR_CONTEXT", value_name = "FILE")]
    pub(crate) context: Option<PathBuf>,

    /// Longest time to wait for one answer, through all changes of leader, such as 500ms, 30s or 2min.
    #[arg(long, global = true, env = "SEQUOR_DEADLINE", value_name = "TIME", default_value = "60s",
          value_parser = deadline)]
    pub(crate) deadline: Duration,

    /// What to log on stderr: error, warn, info, debug, trace, or a filter such as `warn,sequor_broker=debug`.
    ///
    /// Without it: `info` for `serve`, `warn` for all others. Text on a terminal, JSON otherwise.
    #[arg(long, global = true, env = "SEQUOR_LOG", value_name = "LEVEL")]
    pub(crate) log: Option<String>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// See it work: three brokers, a real file, a leader killed half way, and the numbers.
    Quickstart(QuickstartArgs),
    /// Run a cluster in one process, to develop against. Its data stay.
    Dev(DevArgs),
    /// Make certificates, identities and configuration of a cluster.
    Certs(CertsArgs),
    /// Run one broker.
    Serve(ServeArgs),
    /// Append the lines of a file, each exactly once, however often this is run.
    Append(AppendArgs),
    /// Print the log from an offset on.
    Tail(TailArgs),
    /// List producers, show one, close a name, or say what became of a number.
    Producer(ProducerArgs),
    /// Ask every broker what it knows of itself.
    Status(StatusArgs),
    /// Check or print the data directory of a broker that does not run.
    Wal(WalArgs),
    /// Attack whole clusters in virtual time, from seeds, and judge what becomes of every promise.
    Simulate(SimulateArgs),
    /// Attack a cluster of its own under load, and check that every promise was kept.
    Torture(TortureArgs),
    /// Measure: a cluster of its own, a load, and what came of it.
    Bench(BenchArgs),
    /// Print what makes a shell complete commands and flags.
    Completions(CompletionsArgs),
    /// Print the manual, or write a page for each command.
    Man(ManArgs),
}

/// How to print what is not a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shape {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// Shortest and longest deadline that makes sense on the wire.
const DEADLINE_BOUNDS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(600);

fn deadline(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| format!("{error}; write for example 30s"))?;
    if DEADLINE_BOUNDS.contains(&time) {
        return Ok(time);
    }
    let (least, most) = (DEADLINE_BOUNDS.start(), DEADLINE_BOUNDS.end());
    Err(format!(
        "it has to be between {} and {}",
        humantime::format_duration(*least),
        humantime::format_duration(*most)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_deadline_has_a_unit_and_bounds() {
        assert_eq!(deadline("1500ms"), Ok(Duration::from_millis(1500)));
        assert_eq!(deadline("2min"), Ok(Duration::from_secs(120)));
        for wrong in ["", "30", "0s", "1h", "soon"] {
            assert!(deadline(wrong).is_err(), "{wrong}");
        }
    }
}
