//! The `rcnn` command: a thin front over the `rcnn-burn` library.

#[cfg(feature = "data")]
mod analyze;
#[cfg(feature = "data")]
mod augment_args;
mod backend;
mod convert;
#[cfg(feature = "models")]
mod cost;
#[cfg(feature = "data")]
mod data;
mod detect;
#[cfg(feature = "data")]
mod eval;
mod events;
#[cfg(feature = "models")]
mod export;
mod files;
mod inputs;
#[cfg(feature = "models")]
mod inspect;
mod output;
mod overwrite;
#[cfg(feature = "data")]
mod preview;
mod progress;
#[cfg(feature = "train")]
mod prune;
#[cfg(feature = "serve")]
mod serve;
mod source;
#[cfg(feature = "models")]
mod surgery;
mod thresholds;
#[cfg(feature = "data")]
mod tile_data;
mod tiles;
mod track;
#[cfg(feature = "train")]
mod train;
mod video;

use std::io;
use std::process::ExitCode;

use anyhow::Result;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser, Subcommand};

/// Two-stage object detection with torchvision's weights.
#[derive(Parser)]
#[command(
    name = "rcnn",
    version,
    arg_required_else_help = true,
    max_term_width = 100
)]
#[command(after_help = "Examples:
  rcnn detect --output out/ photos/         # boxes on pictures, by the bundled detector
  rcnn train --data cells/ --arch resnet18 --out runs/cells
  rcnn detect -w runs/cells/best.bpk photos/
  rcnn help train                           # everything about a command

Exit status: 0 success; 1 failure; 2 wrong usage; 3 some of several images failed.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Detect(detect::DetectArgs),
    #[cfg(feature = "serve")]
    Serve(serve::ServeArgs),
    #[cfg(feature = "train")]
    Train(train::TrainArgs),
    #[cfg(feature = "data")]
    Eval(eval::EvalArgs),
    #[cfg(feature = "data")]
    Data(data::DataArgs),
    Convert(convert::ConvertArgs),
    #[cfg(feature = "models")]
    Export(export::ExportArgs),
    #[cfg(feature = "models")]
    Inspect(inspect::InspectArgs),
    #[cfg(feature = "models")]
    Surgery(surgery::SurgeryArgs),
    #[cfg(feature = "train")]
    Prune(prune::PruneArgs),
    #[cfg(feature = "data")]
    Analyze(analyze::AnalyzeArgs),
    /// List the devices that this binary can run on
    #[command(after_help = "Example:\n  rcnn detect --device wgpu:1 photo.jpg")]
    Devices,
    /// List the published weights that can be given by name
    #[command(after_help = "Example:\n  rcnn detect --weights COCO_V1 photo.jpg")]
    Weights,
}

/// How a command that did not fail ended.
enum Outcome {
    Done,
    SomeFailed,
    /// Nothing was done, and why has been said.
    AllFailed,
}

fn main() -> ExitCode {
    // It is the first, so that nothing can go wrong.
    let _ = tracing::subscriber::set_global_default(events::Lines);
    let command = Cli::try_parse()
        .unwrap_or_else(|error| usage_error(error).exit())
        .command;
    match check_environment().and_then(|()| run(command)) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::SomeFailed) => ExitCode::from(3),
        Ok(Outcome::AllFailed) => ExitCode::FAILURE,
        // The reader of our output had enough: `rcnn detect ... | head`.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", told(&error));
            ExitCode::FAILURE
        }
    }
}

/// An error with its causes, but for those that its message has already.
fn told(error: &anyhow::Error) -> String {
    let mut told = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !told.contains(&cause) {
            let between = if told.is_empty() { "" } else { ": " };
            told += between;
            told += &cause;
        }
    }
    told
}

/// Names the feature to build with where a command is one that this build lacks.
fn usage_error(error: clap::Error) -> clap::Error {
    let Some(ContextValue::String(command)) = error.get(ContextKind::InvalidSubcommand) else {
        return error;
    };
    let (feature, has) = match command.as_str() {
        "train" | "prune" => ("train", cfg!(feature = "train")),
        "serve" => ("serve", cfg!(feature = "serve")),
        "eval" | "data" | "analyze" => ("data", cfg!(feature = "data")),
        "export" | "inspect" | "surgery" => ("models", cfg!(feature = "models")),
        _ => return error,
    };
    if has {
        return error;
    }
    let message = format!(
        "`rcnn {command}` is not in this build: build rcnn-cli with its feature `{feature}`, which is \
         on by default"
    );
    Cli::command().error(ErrorKind::InvalidSubcommand, message)
}

/// Rejects an instruction set that cannot be used, which the kernels themselves would pass over.
fn check_environment() -> Result<()> {
    #[cfg(feature = "flex")]
    anyhow::Context::context(
        rcnn_burn::cpu::InstructionSet::from_environment(),
        "RCNN_SIMD",
    )?;
    Ok(())
}

fn run(command: Command) -> Result<Outcome> {
    match command {
        Command::Detect(args) => detect::run(args),
        #[cfg(feature = "serve")]
        Command::Serve(args) => serve::run(args),
        #[cfg(feature = "train")]
        Command::Train(args) => train::run(args),
        #[cfg(feature = "data")]
        Command::Eval(args) => eval::run(args),
        #[cfg(feature = "data")]
        Command::Data(args) => data::run(args),
        Command::Convert(args) => convert::run(args),
        #[cfg(feature = "models")]
        Command::Export(args) => export::run(args),
        #[cfg(feature = "models")]
        Command::Inspect(args) => inspect::run(args),
        #[cfg(feature = "models")]
        Command::Surgery(args) => surgery::run(args),
        #[cfg(feature = "train")]
        Command::Prune(args) => prune::run(args),
        #[cfg(feature = "data")]
        Command::Analyze(args) => analyze::run(args),
        Command::Devices => backend::print_devices().map(|()| Outcome::Done),
        Command::Weights => source::list().map(|()| Outcome::Done),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<io::Error>();
    io.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The help of a command and of those under it.
    fn check(mut command: clap::Command) {
        let help = command.render_help().to_string();
        let lines = help.lines().count();
        assert!(lines <= 50, "{} lines:\n{help}", lines);
        let takes_something = command.get_arguments().any(|arg| arg.get_id() != "help");
        assert!(
            !takes_something || help.contains("Examples:"),
            "no example:\n{help}"
        );
        let of_ours = command
            .get_subcommands()
            .filter(|command| command.get_name() != "help");
        of_ours.cloned().for_each(check);
    }

    #[test]
    fn the_short_help_of_every_command_fits_a_screen_and_has_an_example() {
        check(Cli::command());
    }
}
