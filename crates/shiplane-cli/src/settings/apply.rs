//! Gives the jobs of the library their settings. They have the same setters and no trait in common, hence macros.

/// Which paths take part, in the jobs and in `ls`.
macro_rules! with_filters {
    ($job:expr, $filters:expr) => {{
        let filters: &$crate::settings::FilterSettings = $filters;
        let job = $job.ignore_files(filters.ignore).one_file_system(filters.one_file_system);
        let job = filters.listed.iter().fold(job, |job, listed| job.only(listed.iter().cloned()));
        filters.patterns.iter().fold(job, |job, pattern| match pattern {
            $crate::args::Pattern::Exclude(pattern) => job.exclude(pattern),
            $crate::args::Pattern::Include(pattern) => job.include(pattern),
            $crate::args::Pattern::File(file) => job.exclude_from(file),
        })
    }};
}

/// What `get`, `push`, `sync` and `receive` have in common.
macro_rules! with_common {
    ($job:expr, $settings:expr, $reporter:expr, $stop:expr) => {{
        let settings: &$crate::settings::JobSettings = $settings;
        let job = $job
            .compression(settings.compress.compression())
            .digest(settings.digest.algorithm())
            .skip(settings.skip.iter().map(|kind| kind.name()))
            .give_up_after(settings.give_up_after)
            .inside_links_only(settings.inside_links_only)
            .attributes(settings.attributes)
            .on_progress($reporter.events())
            .cancel_on($stop.clone().cancelled_owned());
        let job = settings.rate.iter().fold(job, |job, rate| job.rate(rate.get()));
        let job = settings.jobs.iter().fold(job, |job, jobs| job.concurrency(*jobs));
        let job = settings.chunk_len_bytes.iter().fold(job, |job, len| job.chunk_len_bytes(*len));
        $crate::settings::with_filters!(job, &settings.filters)
    }};
}

/// What becomes of files that exist, in `get` and `push`. `consented`: the user has agreed to a mass deletion.
macro_rules! with_existing {
    ($job:expr, $existing:expr, $consented:expr) => {{
        let existing = $existing;
        let job = $job
            .overwrite(existing.overwrite)
            .keep_existing(existing.keep_existing)
            .delete(existing.delete)
            .dry_run(existing.dry_run)
            .allow_mass_deletion(existing.yes || $consented);
        existing.backup.iter().fold(job, |job, suffix| job.backup(suffix))
    }};
}

pub(crate) use {with_common, with_existing, with_filters};
