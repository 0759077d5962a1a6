//! Runs targets for some minutes: `fuzz MINUTES [TARGET ...]`, all of them by default, one after another. `fuzz` alone
//! lists them.
//!
//! Inputs that make a target panic or take long are written to `fuzz/found`; so is each input while it runs, so that it
//! is still there when the process was killed. `FUZZ_FROM` is the number of the first input, `FUZZ_INPUTS` how many there
//! are at most.

use std::collections::HashSet;
use std::env;
use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use fuzz::{Scratch, TARGETS, Target, mutated, prepare};

/// An input that takes longer than this is one of the findings.
const SLOW: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let known: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    let (minutes, names) = match arguments.split_first() {
        Some((minutes, names)) => (minutes.parse::<f64>().ok(), names),
        None => {
            println!("{}", known.join("\n"));
            return ExitCode::SUCCESS;
        }
    };
    let unknown = names.iter().find(|name| !known.contains(&name.as_str()));
    let Some(minutes) = minutes.filter(|m| *m > 0.0 && unknown.is_none()) else {
        eprintln!(
            "fuzz MINUTES [TARGET ...], where targets are {}",
            known.join(", ")
        );
        return ExitCode::from(2);
    };
    let is_chosen = |target: &&Target| names.is_empty() || names.iter().any(|n| n == target.name);
    let targets: Vec<&Target> = TARGETS.iter().filter(is_chosen).collect();
    prepare();
    let time = Duration::from_secs_f64(minutes * 60.0 / targets.len() as f64);
    let findings = targets.into_iter().map(|target| run(target, time));
    match findings.collect::<io::Result<Vec<usize>>>() {
        Ok(findings) if findings.iter().sum::<usize>() == 0 => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("fuzz/found: {error}");
            ExitCode::from(2)
        }
    }
}

/// Runs one target, says what is found, and returns how much.
fn run(target: &Target, time: Duration) -> io::Result<usize> {
    let found = Path::new(env!("CARGO_MANIFEST_DIR")).join("found");
    fs::create_dir_all(&found)?;
    let running = found.join(format!("{}.running", target.name));
    let (scratch, seeds) = (Scratch::new(), target.seeds());
    let given = |name| env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    let first = given("FUZZ_FROM").unwrap_or(0);
    let end = given("FUZZ_INPUTS").map_or(u64::MAX, |most| first.saturating_add(most));
    let mut known = HashSet::new();
    let start = Instant::now();
    let mut number = first;
    while start.elapsed() < time && number < end {
        let input = mutated(&seeds, number);
        fs::write(&running, &input)?;
        let began = Instant::now();
        let result = target.check(&scratch, &input);
        let finding = match result {
            Err(panic) => panic,
            Ok(()) if began.elapsed() > SLOW => format!("took {:.0?}", began.elapsed()),
            Ok(()) => String::new(),
        };
        // One input for each place.
        let place = finding.lines().next().unwrap_or_default().to_string();
        if !finding.is_empty() && known.insert(place) {
            let path = found.join(format!("{}-{number}", target.name));
            fs::write(&path, &input)?;
            println!("{}: {}", path.display(), finding.replace('\n', " "));
        }
        number += 1;
    }
    fs::remove_file(&running)?;
    println!(
        "{}: {} inputs, {} findings",
        target.name,
        number - first,
        known.len()
    );
    Ok(known.len())
}
