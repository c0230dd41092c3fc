//! The whole of `init`, from flags to exit code.

use std::fs::{self, OpenOptions};
use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};

use super::answers::{Answers, Complete};
use super::args::InitArgs;
use crate::config::FILE_NAME;

const FINE: u8 = 0;
const FAILED: u8 = 1;
const USAGE: u8 = 2;

/// The subscribers file; the configuration names it.
const SUBSCRIBERS: &str = "subscribers.toml";

/// Runs the command and returns its exit code: 0 when both files were written, 1 when they could not be
/// (one is there, the folder is not writable), 2 when a flag is faulty or missing.
///
/// Asks on `output` and reads from `input` only when `is_terminal` says that a person is there and
/// `--yes` does not forbid it. Faults go to `errors`.
pub fn run(
    args: &InitArgs,
    input: &mut dyn BufRead,
    output: &mut dyn Write,
    errors: &mut dyn Write,
    is_terminal: bool,
) -> u8 {
    match try_run(args, input, output, errors, is_terminal) {
        Ok(code) => code,
        Err(error) => {
            // Whoever listened is gone; there is nobody left to tell if this fails as well.
            let _ = writeln!(errors, "error: the terminal is gone: {}", error.kind());
            FAILED
        }
    }
}

fn try_run(
    args: &InitArgs,
    input: &mut dyn BufRead,
    output: &mut dyn Write,
    errors: &mut dyn Write,
    is_terminal: bool,
) -> io::Result<u8> {
    let mut answers = match Answers::from_flags(args) {
        Ok(answers) => answers,
        Err(faults) => {
            for fault in faults {
                writeln!(errors, "error: {fault}")?;
            }
            return Ok(USAGE);
        }
    };
    let ask = is_terminal && !args.yes;
    if !ask && !answers.missing().is_empty() {
        return tell_missing(&answers, errors);
    }
    let files = [args.dir.join(FILE_NAME), args.dir.join(SUBSCRIBERS)];
    // Before any question: nobody wants to answer four of them for nothing.
    let there: Vec<&PathBuf> = files.iter().filter(|file| file.symlink_metadata().is_ok()).collect();
    if !there.is_empty() {
        for file in there {
            writeln!(errors, "error: {} exists and is not overwritten; nothing was written", file.display())?;
        }
        return Ok(FAILED);
    }
    if !answers.missing().is_empty() {
        answers.ask(input, output)?;
    }
    if !answers.missing().is_empty() {
        return tell_missing(&answers, errors);
    }
    let complete = answers.complete().expect("nothing is missing");
    if let Err((file, error)) = write_both(&args.dir, &files, &complete) {
        writeln!(errors, "error: {}: {}; nothing was written", file.display(), reason(&error))?;
        return Ok(FAILED);
    }
    let [config, subscribers] = &files;
    writeln!(output, "Wrote {} and {}.", config.display(), subscribers.display())?;
    write!(output, "{}", complete.next_steps(config))?;
    output.flush()?;
    Ok(FINE)
}

fn tell_missing(answers: &Answers, errors: &mut dyn Write) -> io::Result<u8> {
    writeln!(errors, "error: missing: {}", answers.missing().join(", "))?;
    Ok(USAGE)
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AlreadyExists => "exists and is not overwritten".to_owned(),
        kind => kind.to_string(),
    }
}

/// Writes both files or none. Neither is ever opened over an existing one, even if it appeared just now.
fn write_both(folder: &Path, files: &[PathBuf; 2], complete: &Complete) -> Result<(), (PathBuf, io::Error)> {
    fs::create_dir_all(folder).map_err(|error| (folder.to_owned(), error))?;
    let mut written = Vec::new();
    for (file, text) in files.iter().zip([complete.configuration(), complete.subscribers()]) {
        if let Err(error) = write_new(file, &text, &mut written) {
            for half in &written {
                // What cannot be removed either is named by the error that is told.
                let _ = fs::remove_file(half);
            }
            return Err((file.clone(), error));
        }
    }
    Ok(())
}

fn write_new<'f>(file: &'f Path, text: &str, written: &mut Vec<&'f Path>) -> io::Result<()> {
    let mut open = OpenOptions::new().write(true).create_new(true).open(file)?;
    written.push(file);
    open.write_all(text.as_bytes())?;
    open.sync_all()
}
