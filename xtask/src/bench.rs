//! `cargo xtask bench`: one large file over loopback, as whole programs: shiplane beside scp and raw
//! quinn. Interleaved runs, medians, and ratios, since absolute numbers drift from machine to machine.
//! `rpc` compares calls instead. Nothing here is an assertion: a slow machine makes no red build.

mod ours;
mod raw;
mod rpc;
mod scp;
mod table;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

use self::ours::{Durability, Ours};
use self::raw::Raw;
use self::scp::Scp;
use self::table::Measured;
use crate::process::Usage;
use crate::scratch::{self, Scratch};
use crate::shiplane::Shiplane;
use crate::{compare, dataset, interrupt, units};

/// What the user typed.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    other: Option<Other>,
    /// Size of the file, in MiB
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u64).range(1..))]
    size_mib: u64,
    /// Measured runs of each program, after one that is not counted
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Where the file and its copies lie; /dev/shm if it has room, else the temporary directory
    #[arg(long)]
    dir: Option<PathBuf>,
    /// The largest packet that raw quinn may try, in bytes
    #[arg(long)]
    raw_mtu: Option<u16>,
}

/// What else can be measured.
#[derive(Debug, clap::Subcommand)]
enum Other {
    /// Calls, beside bare quinn and tarpc, and beside a bulk transfer
    Rpc(rpc::Args),
}

/// Measures and prints the table.
pub(crate) fn run(args: &Args) -> Result<()> {
    if let Some(Other::Rpc(args)) = &args.other {
        return rpc::run(args);
    }
    println!("building shiplane in release");
    let shiplane = Shiplane::build()?;
    let bytes = args.size_mib << 20;
    let scratch = Scratch::new("shiplane-bench-", Some(&place(args, bytes)))?;
    scratch.expect_room(room_bytes(bytes))?;
    let course = Course::lay(&scratch, bytes)?;
    let mut field = Field::gather(args, &course, &shiplane)?;
    field.warm_up(&course)?;
    let measured = field.measure(args.runs, &course)?;
    println!("\n{}", heading(args, &scratch, bytes));
    println!("{}", table::table(&measured, bytes));
    for reason in field.missing {
        println!("  missing: {reason}");
    }
    Ok(())
}

/// A program that can carry the file.
trait Contender {
    /// How the table calls it.
    fn name(&self) -> &'static str;

    /// Whether the comparison goes on without it.
    fn is_optional(&self) -> bool;

    /// Carries the file once. Preparing and tidying up are not timed.
    fn run(&mut self, course: &Course) -> Result<Sample>;
}

/// What one run took.
#[derive(Clone, Copy, Debug)]
struct Sample {
    time: Duration,
    used: Used,
}

/// What the two sides used.
#[derive(Clone, Copy, Debug)]
enum Used {
    /// Two programs.
    Apart { sender: Usage, receiver: Usage },
    /// Both sides in one process, which also says what size its packets reached.
    Together { used: Usage, packet_bytes: u64 },
}

/// The file to carry and where to.
#[derive(Debug)]
struct Course {
    /// Holds the file and nothing else.
    source: PathBuf,
    file: PathBuf,
    /// Absent between the runs.
    destination: PathBuf,
    /// For what the programs keep.
    state: PathBuf,
    bytes: u64,
}

impl Course {
    fn lay(scratch: &Scratch, bytes: u64) -> Result<Self> {
        let source = scratch.directory("source")?;
        let file = source.join(FILE_NAME);
        println!("making a file of {}", units::bytes(bytes));
        dataset::large_file(&file, bytes)?;
        let destination = scratch.path().join("copy");
        Ok(Self { source, file, destination, state: scratch.directory("state")?, bytes })
    }

    /// Where a program's own directory lies; made if it is absent.
    fn state(&self, name: &str) -> Result<PathBuf> {
        let path = self.state.join(name);
        std::fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(path)
    }

    /// Where every program puts the copy.
    fn copy(&self) -> PathBuf {
        self.destination.join(FILE_NAME)
    }
}

/// The programs that will run, and why others will not.
struct Field {
    contenders: Vec<Box<dyn Contender>>,
    missing: Vec<String>,
}

impl Field {
    fn gather(args: &Args, course: &Course, shiplane: &Shiplane) -> Result<Self> {
        let mut field = Self { contenders: Vec::new(), missing: Vec::new() };
        for durability in [Durability::Verified, Durability::Durable] {
            field.contenders.push(Box::new(Ours::new(shiplane.clone(), durability)));
        }
        match Scp::prepare(&course.state("ssh")?)? {
            Ok(scp) => field.contenders.push(Box::new(scp)),
            Err(missing) => field.missing.push(missing),
        }
        match Raw::build(args.raw_mtu)? {
            Ok(raw) => field.contenders.push(Box::new(raw)),
            Err(missing) => field.missing.push(missing),
        }
        Ok(field)
    }

    /// One uncounted round. A program that is not ours and fails here is missing from then on.
    fn warm_up(&mut self, course: &Course) -> Result<()> {
        for mut contender in std::mem::take(&mut self.contenders) {
            interrupt::check()?;
            let name = contender.name();
            let ran = contender.run(course);
            let judged = ran.and_then(|sample| judge_copy(course, true).map(|()| sample));
            match judged {
                Ok(sample) => println!("  warming up  {name:20} {}", units::seconds(sample.time)),
                Err(failure) if contender.is_optional() => {
                    self.missing.push(format!("{name}: {failure:#}"));
                    judge_copy(course, false)?;
                    continue;
                }
                Err(failure) => return Err(failure.context(format!("{name} failed"))),
            }
            self.contenders.push(contender);
        }
        Ok(())
    }

    /// Rounds in which every program has its turn, so that a slow minute of the machine hits all.
    fn measure(&mut self, runs: u32, course: &Course) -> Result<Vec<Measured>> {
        let mut measured: Vec<Measured> =
            self.contenders.iter().map(|contender| Measured::new(contender.name())).collect();
        for round in 1..=runs {
            for (contender, measured) in self.contenders.iter_mut().zip(&mut measured) {
                interrupt::check()?;
                let name = measured.name;
                let sample = contender.run(course).with_context(|| format!("{name} failed"))?;
                judge_copy(course, false)?;
                println!("  run {round} of {runs}  {name:20} {}", units::seconds(sample.time));
                measured.samples.push(sample);
            }
        }
        Ok(measured)
    }
}

/// Looks at the copy, every byte of it if `closely`, and removes it. Raw quinn leaves none.
fn judge_copy(course: &Course, closely: bool) -> Result<()> {
    if !course.destination.exists() {
        return Ok(());
    }
    if closely {
        compare::expect_same_content(&course.file, &course.copy())?;
    }
    let removed = std::fs::remove_dir_all(&course.destination);
    removed.with_context(|| format!("cannot remove {}", course.destination.display()))
}

fn place(args: &Args, bytes: u64) -> PathBuf {
    let memory = Path::new("/dev/shm");
    let has_room = || scratch::free_bytes(memory).is_ok_and(|free| free >= room_bytes(bytes));
    match &args.dir {
        Some(directory) => directory.clone(),
        None if memory.is_dir() && has_room() => memory.to_path_buf(),
        None => std::env::temp_dir(),
    }
}

/// The file, its copy, and what the programs keep beside them.
fn room_bytes(bytes: u64) -> u64 {
    2 * bytes + (64 << 20)
}

fn heading(args: &Args, scratch: &Scratch, bytes: u64) -> String {
    format!(
        "One file of {}, loopback, from and to {}; {} interleaved runs, medians.\n\
         shiplane and scp: from the start of the receiving program to its end, aes-128-gcm.\n\
         raw quinn: memory to memory, no hashing, no handshake, one process.\n",
        units::bytes(bytes),
        scratch.path().parent().unwrap_or_else(|| scratch.path()).display(),
        args.runs,
    )
}

const FILE_NAME: &str = "file.bin";
