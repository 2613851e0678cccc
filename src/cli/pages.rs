//! Generated texts: settings, completions, manual pages.

use super::Arguments;
use super::tools::fail;
use crate::config;
use clap::{CommandFactory, ValueEnum};
use clap_complete::Shell;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

/// The form in which settings are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SettingsForm {
    /// Each with its default and its meaning
    Text,
    /// As a configuration with all settings
    Sample,
}

/// Prints all settings.
pub(super) fn settings(form: SettingsForm) -> ExitCode {
    print(
        match form {
            SettingsForm::Text => config::help(),
            SettingsForm::Sample => config::sample(),
        }
        .as_bytes(),
    )
}

/// Prints the completion script for a shell.
pub(super) fn completions(shell: Shell) -> ExitCode {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "sluice", &mut text);
    print(&text)
}

/// Writes a page for the program and one for each of its commands.
pub(super) fn manual(folder: &Path) -> ExitCode {
    let written = fs::create_dir_all(folder).and_then(|()| clap_mangen::generate_to(Arguments::command(), folder));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("writing manual pages to {}: {error}", folder.display())),
    }
}

fn print(text: &[u8]) -> ExitCode {
    // A reader such as head(1) may have closed the pipe.
    let _ = io::stdout().lock().write_all(text);
    ExitCode::SUCCESS
}
