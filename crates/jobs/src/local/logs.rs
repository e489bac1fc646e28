//! What jobs print: two files a job, the older of which is dropped when the newer is full.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::ErrorKind;
use bytes::Bytes;
use parking_lot::Mutex;
use protocol::ApiError;
use tokio::sync::watch;

use crate::executor::{Answer, LogQuery, LogStream, RunId};

/// All of them. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Logs(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    /// Of each of a job's two files.
    half: u64,
    /// Of jobs that run.
    open: Mutex<BTreeMap<String, Open>>,
}

#[derive(Debug)]
struct Open {
    file: File,
    /// Bytes dropped, and in the older file, and in the newer one.
    dropped: u64,
    older: u64,
    newer: u64,
    /// Bytes printed so far; closed when the run ends.
    printed: watch::Sender<u64>,
}

/// Read at a time.
const PIECE_BYTES: usize = 64 << 10;

impl Logs {
    pub(super) fn open(folder: &Path, bytes_max: u64) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        Ok(Self(Arc::new(Shared {
            folder: folder.to_owned(),
            half: (bytes_max / 2).max(1),
            open: Mutex::default(),
        })))
    }

    /// A run begins to print.
    pub(super) fn begins(&self, run: &RunId) {
        if let Err(error) = self.try_begin(run) {
            tracing::warn!(run = run.to_string(), %error, "what the job prints is not kept");
        }
    }

    fn try_begin(&self, run: &RunId) -> io::Result<()> {
        let (newer, older) = self.files(&run.job);
        let file = OpenOptions::new().create(true).append(true).open(&newer)?;
        let bytes = |path: &Path| fs::metadata(path).map_or(0, |file| file.len());
        let (old, new) = (bytes(&older), bytes(&newer));
        let open = Open {
            file,
            dropped: 0,
            older: old,
            newer: new,
            printed: watch::Sender::new(old + new),
        };
        self.0.open.lock().insert(run.job.clone(), open);
        if run.attempt > 1 {
            self.write(
                &run.job,
                format!("--- attempt {}\n", run.attempt).as_bytes(),
            );
        }
        Ok(())
    }

    pub(super) fn write(&self, job: &str, bytes: &[u8]) {
        let mut all = self.0.open.lock();
        let Some(open) = all.get_mut(job) else {
            return;
        };
        if let Err(error) = self.put(job, open, bytes) {
            tracing::warn!(job, %error, "what the job prints is not kept");
        }
    }

    fn put(&self, job: &str, open: &mut Open, bytes: &[u8]) -> io::Result<()> {
        let added = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if open.newer > 0 && open.newer + added > self.0.half {
            let (newer, older) = self.files(job);
            fs::rename(&newer, &older)?;
            open.file = OpenOptions::new().create(true).append(true).open(&newer)?;
            open.dropped += open.older;
            open.older = std::mem::take(&mut open.newer);
        }
        open.file.write_all(bytes)?;
        open.newer += added;
        open.printed
            .send_replace(open.dropped + open.older + open.newer);
        Ok(())
    }

    pub(super) fn ended(&self, job: &str) {
        self.0.open.lock().remove(job);
    }

    pub(super) fn forget(&self, job: &str) {
        let (newer, older) = self.files(job);
        for file in [newer, older] {
            // A job that printed nothing has none.
            drop(fs::remove_file(file));
        }
    }

    pub(super) fn read(&self, job: &str, query: LogQuery) -> Result<Reader, ApiError> {
        let (newer, older) = self.files(job);
        if !newer.exists() && !older.exists() {
            return Err(super::no_logs(job));
        }
        let printed = query.follow.then(|| {
            let open = self.0.open.lock();
            open.get(job).map(|open| open.printed.subscribe())
        });
        let mut reader = Reader {
            logs: self.clone(),
            job: job.to_owned(),
            at: 0,
            printed: printed.flatten(),
        };
        if let Some(lines) = query.tail {
            reader.at = self.tail(job, lines).map_err(|error| unreadable(&error))?;
        }
        Ok(reader)
    }

    /// Where the last lines begin.
    fn tail(&self, job: &str, lines: usize) -> io::Result<u64> {
        let mut text = Vec::new();
        let mut at = 0;
        let mut start = None;
        while let Some((from, piece)) = self.piece(job, at)? {
            start.get_or_insert(from);
            at = from + u64::try_from(piece.len()).unwrap_or(u64::MAX);
            text.extend_from_slice(&piece);
        }
        let ended = text.strip_suffix(b"\n").unwrap_or(&text);
        let breaks = ended
            .iter()
            .enumerate()
            .rev()
            .filter(|(_, byte)| **byte == b'\n');
        let cut = match lines {
            0 => text.len(),
            lines => breaks
                .map(|(index, _)| index + 1)
                .nth(lines - 1)
                .unwrap_or(0),
        };
        Ok(start.unwrap_or(0) + u64::try_from(cut).unwrap_or(u64::MAX))
    }

    /// What is kept from a place on, and where that begins; none at the end. Under the lock, so that no file changes its
    /// name meanwhile.
    fn piece(&self, job: &str, at: u64) -> io::Result<Option<(u64, Vec<u8>)>> {
        let all = self.0.open.lock();
        let (newer, older) = self.files(job);
        let bytes = |path: &Path| fs::metadata(path).map_or(0, |file| file.len());
        let (dropped, old) = match all.get(job) {
            Some(open) => (open.dropped, open.older),
            None => (0, bytes(&older)),
        };
        let at = at.max(dropped);
        let (path, skip) = if at < dropped + old {
            (older, at - dropped)
        } else {
            (newer, at - dropped - old)
        };
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        file.seek(SeekFrom::Start(skip))?;
        let mut piece = vec![0; PIECE_BYTES];
        let count = file.read(&mut piece)?;
        piece.truncate(count);
        Ok((count > 0).then_some((at, piece)))
    }

    fn files(&self, job: &str) -> (PathBuf, PathBuf) {
        // Ids are legal names, so no separator is in them; what is not an id finds nothing.
        let safe = job.replace(['/', '\\'], "_");
        let newer = self.0.folder.join(format!("{safe}.log"));
        let older = self.0.folder.join(format!("{safe}.1.log"));
        (newer, older)
    }
}

/// What one job printed, from a place on.
#[derive(Debug)]
pub(super) struct Reader {
    logs: Logs,
    job: String,
    at: u64,
    /// Present while it is followed.
    printed: Option<watch::Receiver<u64>>,
}

impl LogStream for Reader {
    fn next(&mut self) -> Answer<'_, Option<Bytes>> {
        Box::pin(async move {
            loop {
                if let Some(printed) = &mut self.printed {
                    printed.mark_unchanged();
                }
                let piece = self.logs.piece(&self.job, self.at);
                if let Some((from, piece)) = piece.map_err(|error| unreadable(&error))? {
                    self.at = from + u64::try_from(piece.len()).unwrap_or(u64::MAX);
                    return Ok(Some(piece.into()));
                }
                let Some(printed) = &mut self.printed else {
                    return Ok(None);
                };
                if printed.changed().await.is_err() {
                    // The run has ended; what it printed last is still to be read.
                    self.printed = None;
                }
            }
        })
    }
}

fn unreadable(error: &io::Error) -> ApiError {
    ApiError::new(
        ErrorKind::Internal,
        format!("what the job printed cannot be read: {error}"),
    )
}
