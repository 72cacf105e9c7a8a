//! `shiplane clean DIR`

use std::io;

use shiplane::Error;

use crate::args::CleanArgs;
use crate::events::Event;
use crate::failure::Failure;
use crate::job::Job;
use crate::runtime;
use crate::settings::OutputMode;

pub(super) fn run(args: CleanArgs) -> Result<(), Failure> {
    runtime::run(async {
        let output_mode = if args.json { OutputMode::Json } else { OutputMode::Human };
        let job = Job::begin(output_mode, io::stdout());
        let cleaned = shiplane::clean(args.directory, args.older_than, args.dry_run).await;
        if let Some(report) = cleaned.as_ref().map_or_else(Error::report, Some) {
            report.actions.iter().for_each(|action| job.tell(&Event::action(action)));
            report.left_out.iter().for_each(|left_out| job.tell(&Event::left_out(left_out)));
            job.tell(&Event::Cleaned {
                files: report.files,
                bytes: report.bytes_total,
                dry_run: args.dry_run,
                seconds: job.seconds(),
            });
        }
        job.end(cleaned.map(drop).map_err(Failure::from))
    })
    .map_err(Failure::Runtime)?
}
