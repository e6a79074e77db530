//! `sequor man`: the manual, one page for each command, from the definition of the command line.
//!
//! What a command's help says behind its flags has a section of its own each: examples and exit codes keep their
//! lines, all else is prose.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use clap::{Command, CommandFactory as _, ValueHint};
use clap_mangen::{
    Man,
    roff::{Roff, roman},
};
use thiserror::Error;

use crate::{
    cli::Cli,
    exit::{Exit, Failure, Verdict},
    output, shell,
    visible::visible_path,
    words::plain_count,
};

/// The section of commands that users run.
const SECTION: &str = "1";

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sequor man | man -l -                               read the main page
  sequor man ~/.local/share/man/man1                  install all pages: man sequor-append")]
pub(crate) struct ManArgs {
    /// Write all pages into this directory, which is made if it is not there; without it the main page is printed.
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    directory: Option<PathBuf>,
}

/// A page could not be written.
#[derive(Debug, Error)]
#[error("cannot write {}", visible_path(.path))]
pub(crate) struct ManError {
    path: PathBuf,
    source: io::Error,
}

impl Verdict for ManError {
    fn exit(&self) -> Exit {
        Exit::Error
    }
}

pub(crate) fn run(args: &ManArgs) -> Result<(), Failure> {
    let pages = pages();
    let Some(directory) = &args.directory else {
        let (_, main) = pages.first().expect("the program itself has a page");
        return output::print(main);
    };
    write(directory, &pages)?;
    let (count, word) = (plain_count(pages.len() as u64, "page"), shell::word(&directory.join("sequor.1")));
    output::tell(&format!("{count}; to read the main one: man -l {word}\n"))
}

fn write(directory: &Path, pages: &[(String, String)]) -> Result<(), ManError> {
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |source| ManError { path, source }
    };
    fs::create_dir_all(directory).map_err(failed(directory))?;
    for (name, page) in pages {
        let path = directory.join(name);
        fs::write(&path, page).map_err(failed(&path))?;
    }
    Ok(())
}

/// The name of the file of every page, and the page; the main one first.
fn pages() -> Vec<(String, String)> {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    add_pages(&command, &mut pages);
    pages
}

fn add_pages(command: &Command, pages: &mut Vec<(String, String)>) {
    let page =
        Man::new(command.clone()).section(SECTION).source(concat!("sequor ", env!("CARGO_PKG_VERSION")));
    pages.push((page.get_filename(), render(command, &page).expect("memory takes everything")));
    for subcommand in command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()) {
        add_pages(subcommand, pages);
    }
}

fn render(command: &Command, page: &Man) -> io::Result<String> {
    let mut out = Vec::new();
    page.render_title(&mut out)?;
    page.render_name_section(&mut out)?;
    page.render_synopsis_section(&mut out)?;
    page.render_description_section(&mut out)?;
    page.render_options_section(&mut out)?;
    if command.has_subcommands() {
        page.render_subcommands_section(&mut out)?;
    }
    after_help(command).to_writer(&mut out)?;
    Ok(String::from_utf8(out).expect("what it is made of is text"))
}

/// What the help says behind the flags, paragraph by paragraph.
fn after_help(command: &Command) -> Roff {
    let mut roff = Roff::new();
    let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let mut in_notes = false;
    for paragraph in text.split("\n\n") {
        let heading = match paragraph.split_once('\n') {
            Some(("Examples:", lines)) => Some(("EXAMPLES", lines)),
            Some(("Exit codes:", lines)) => Some(("EXIT STATUS", lines)),
            _ => None,
        };
        if let Some((heading, lines)) = heading {
            in_notes = false;
            roff.control("SH", [heading]).control("nf", []);
            for line in lines.lines() {
                roff.text([roman(line.trim_start())]);
            }
            roff.control("fi", []);
        } else if !paragraph.trim().is_empty() {
            if in_notes {
                roff.control("PP", []);
            } else {
                roff.control("SH", ["NOTES"]);
            }
            in_notes = true;
            roff.text([roman(paragraph.replace('\n', " "))]);
        }
    }
    roff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_with_its_flags_and_examples() {
        let pages = pages();
        let page = |name: &str| {
            let found = pages.iter().find(|(found, _)| found == name);
            &found.unwrap_or_else(|| panic!("there is no page {name}")).1
        };
        assert_eq!(pages[0].0, "sequor.1");
        assert!(page("sequor.1").contains(".SH \"EXIT STATUS\""), "{}", page("sequor.1"));
        for command in Cli::command().get_subcommands() {
            page(&format!("sequor-{}.1", command.get_name()));
        }
        for name in ["sequor-append.1", "sequor-certs-init.1", "sequor-wal-dump.1"] {
            assert!(page(name).contains(".SH EXAMPLES\n.nf\nsequor "), "{}", page(name));
            assert!(page(name).contains("SEQUOR_CONTEXT"), "the flags of all commands are there too");
        }
        assert!(!page("sequor-serve.1").contains("die"), "a hidden flag is hidden");
    }
}
