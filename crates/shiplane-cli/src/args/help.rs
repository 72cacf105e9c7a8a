//! The text after the options in the help of commands. A paragraph is one line; the help wraps it.

pub(super) const GET_HELP: &str = "\
A directory becomes DEST. A file becomes DEST too, or lands in it if DEST is a directory. If DEST ends in a \
slash, or several sources are given, each lands in DEST by its name. Missing directories are created. The same \
command run again finds the same place and changes nothing:

  shiplane get nas/photos/2026 copy     copy has the content of 2026
  shiplane get nas/photos/2026 copy/    copy/2026 has it
  shiplane get me@host:photos copy      over ssh; photos is in the home directory there

Without SOURCE, the ticket is read from --ticket-file or from the variable SHIPLANE_TICKET. Both hide it from \
the process list. To resume an interrupted run, repeat the command.";

pub(super) const PUSH_HELP: &str = "\
Each PATH lands by its name in the directory of TARGET, or its content if PATH ends in `/.`. Missing \
directories are created. The same command run again finds the same place and changes nothing:

  shiplane push photos nas/backup       backup/photos has the content of photos
  shiplane push photos/. nas/backup     backup has it
  shiplane push photos me@host:backup   over ssh; backup is in the home directory there

Standard input becomes the file that TARGET names: NAME/DIR/FILE, or a ticket URL with /DIR/FILE at its end. \
It is sent as it is read, and may pause for any time. The file appears at the end of the input, even if the \
program that writes it has failed (see pipefail of your shell). The push resumes after a lost connection. It \
does not resume in another run, which cannot read the input again.

Without TARGET, the ticket is read from --ticket-file or from the variable SHIPLANE_TICKET. Both hide it from \
the process list. To resume an interrupted run, repeat the command.";

pub(super) const SYNC_HELP: &str = "\
Changes and deletions since the last sync are applied to the other side. If both sides changed a file, the \
later version keeps the name and the other becomes NAME.conflict-DIGEST. Files edited during the sync are left \
out; run the command again to sync them.

With --one-way, only one side is changed; for `--one-way get` a ticket for reading is enough. The changed side \
keeps its own changes: files that only it has, and its version of a file that the other side has changed or \
deleted too. Such a conflict is reported, and the exit code is 9. A file that was deleted on the changed side \
comes back. To make TARGET exactly like DIR, use `shiplane push --overwrite --delete DIR/. TARGET`; for the \
other direction, use get in the same way.

With --watch, the sync continues until Ctrl-C (exit code 130). A change on either side starts a new round \
about a tenth of a second later. In such a round both sides examine only the changed paths. They compare all \
files at the start, over a new connection, after many changes at once, and every hour. Paths that are left out \
are reported and do not end the sync. A deletion of most files ends it, without --allow-mass-deletion. If the \
server is absent, at the start or later, `sync` tries to connect again, by default without limit, and then \
applies everything that has changed. If the system's limit of watched directories is too low, it names the \
setting to raise, and compares both sides every minute instead. On a network file system, changes from another \
machine are only found by the next comparison.

Without TARGET, the ticket is read from --ticket-file or from the variable SHIPLANE_TICKET. Both hide it from \
the process list. To resume an interrupted run, repeat the command.";

pub(super) const EXIT_CODES: &str = "\
Exit codes: 0 done, verified and durable · 1 other failure · 2 usage · 3 peer unreachable or silent
4 identity or authorisation · 5 integrity · 6 refused (path, limit, exists)
7 local input or output (no space, permission) · 9 done, except for paths that are left out
130 interrupted. If several apply, the first of 130, 4, 5, 7, 6, 3, 1, 9.

Paths that did not arrive are printed on standard error, with the reason; --skip KIND says that a kind is not \
wanted.

The key, the list of peers and the state of syncs are in $SHIPLANE_HOME, by default the platform's usual \
directories.";

pub(super) const LS_HELP: &str = "\
Lists what get would fetch, sorted by name. Directories end in a slash; with -l, times are in UTC.

  shiplane ls nas/photos          one line for each name in photos
  shiplane ls -lR 'TICKET'        everything, with sizes
  shiplane ls me@host:photos      over ssh

Without SOURCE, the ticket is read from --ticket-file or from the variable SHIPLANE_TICKET. Both hide it from \
the process list.";

pub(super) const DOCTOR_HELP: &str = "\
The result of each check is fine, poor (some transfers could be faster) or bad (transfers suffer or fail), \
with a hint. With SOURCE, the path is measured for two seconds in each direction, at most at the server's \
--rate; any peer that may read there may do this. The predicted rate is the lowest of path, disk, digest and \
encryption. It uses this machine's disk and processor, because the server's are not known. The exit code is 1 \
if anything is bad, and 3 if the server cannot be reached.";
