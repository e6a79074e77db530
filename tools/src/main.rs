//! The program `sequor`. All of it is in the library beside this file, which can then be compiled while the broker still is:
//! a program has to wait for everything that it is linked with.

use std::process::ExitCode;

fn main() -> ExitCode {
    sequor_cli::main()
}
