//! `sequor completions`: what makes a shell complete commands, flags and files after `sequor`.
//!
//! It is made from the definition of the command line, so it knows what this very binary knows.

use clap::{CommandFactory as _, ValueEnum};
use clap_complete::aot;

use crate::{cli::Cli, exit::Failure, output};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sequor completions bash > ~/.local/share/bash-completion/completions/sequor
  sequor completions zsh > \"${fpath[1]}/_sequor\"
  sequor completions fish > ~/.config/fish/completions/sequor.fish
  source <(sequor completions bash)                   for this shell alone")]
pub(crate) struct CompletionsArgs {
    /// Which shell.
    shell: Shell,
}

/// A shell that completes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

pub(crate) fn run(args: &CompletionsArgs) -> Result<(), Failure> {
    output::print(&script(args.shell))
}

fn script(shell: Shell) -> String {
    let shell = match shell {
        Shell::Bash => aot::Shell::Bash,
        Shell::Zsh => aot::Shell::Zsh,
        Shell::Fish => aot::Shell::Fish,
    };
    let mut script = Vec::new();
    let mut command = Cli::command();
    let name = command.get_name().to_owned();
    aot::generate(shell, &mut command, name, &mut script);
    String::from_utf8(script).expect("what it is made of is text")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_learns_every_command() {
        for shell in Shell::value_variants() {
            let script = script(*shell);
            for command in Cli::command().get_subcommands() {
                assert!(
                    script.contains(command.get_name()),
                    "{shell:?} does not know {}",
                    command.get_name()
                );
            }
            assert!(script.contains("length-prefixed"), "{shell:?} does not know a flag of a command");
        }
    }
}
