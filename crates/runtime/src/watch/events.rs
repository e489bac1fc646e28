use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};

/// Deeper folders are looked at now and then only.
const DEPTH_MAX: usize = 4;

/// More folders than this are looked at now and then only; the system's own limit is often lower.
const WATCHES_MAX: usize = 100_000;

/// What the system told.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// Something in the model's folder, or the folder itself.
    Changed { model: String },
    /// Files in a folder that was not watched when they were written.
    Found { model: String },
    /// A file is being written.
    Writing { model: String, file: PathBuf },
    /// Whoever wrote it has closed it, or it is gone.
    Written { model: String, file: PathBuf },
    /// Too much happened at once.
    Lost,
}

#[derive(Debug)]
pub(super) struct Events {
    inotify: OwnedFd,
    watched: BTreeMap<i32, Watched>,
    full: bool,
}

#[derive(Debug, Clone)]
struct Watched {
    path: PathBuf,
    /// None for a repository.
    model: Option<String>,
    depth: usize,
}

impl Events {
    pub(super) fn open() -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        Ok(Self {
            inotify,
            watched: BTreeMap::new(),
            full: false,
        })
    }

    /// Watches a repository and all models in it; again does no harm.
    pub(super) fn watch_repository(&mut self, repository: &Path) {
        self.watch(Watched {
            path: repository.to_owned(),
            model: None,
            depth: 0,
        });
    }

    /// Watches a folder and those below it.
    fn watch(&mut self, first: Watched) {
        let mut open = vec![first];
        while let Some(folder) = open.pop() {
            if self.watched.len() >= WATCHES_MAX || folder.depth > DEPTH_MAX {
                continue;
            }
            let flags = WatchFlags::CREATE
                | WatchFlags::MODIFY
                | WatchFlags::ATTRIB
                | WatchFlags::CLOSE_WRITE
                | WatchFlags::DELETE
                | WatchFlags::MOVED_FROM
                | WatchFlags::MOVED_TO
                | WatchFlags::ONLYDIR;
            // Before it is listed: what comes after is told, what was there is found.
            match inotify::add_watch(&self.inotify, &folder.path, flags) {
                Ok(watch) => {
                    self.watched.insert(watch, folder.clone());
                }
                Err(error) => {
                    let missing = error == rustix::io::Errno::NOENT;
                    if !missing && !std::mem::replace(&mut self.full, true) {
                        tracing::warn!(
                            folder = %folder.path.display(),
                            %error,
                            "cannot watch a folder; it and others are looked at now and then"
                        );
                    }
                    continue;
                }
            }
            for entry in fs::read_dir(&folder.path).into_iter().flatten().flatten() {
                let path = entry.path();
                let name = entry.file_name().to_string_lossy().into_owned();
                if path.is_dir() && !name.starts_with('.') {
                    let model = folder.model.clone().or(Some(name));
                    let depth = folder.depth + 1;
                    open.push(Watched { path, model, depth });
                }
            }
        }
    }

    /// Sleeps until something happens, or this long.
    pub(super) fn wait(&mut self, long: Duration) {
        let limit = Timespec::try_from(long).ok();
        let mut descriptors = [PollFd::new(&self.inotify, PollFlags::IN)];
        // Interrupted or not: the caller looks.
        let _woken = poll(&mut descriptors, limit.as_ref());
    }

    /// All that has happened since the last time.
    pub(super) fn take(&mut self) -> Vec<Event> {
        let mut buffer = [MaybeUninit::uninit(); 16 << 10];
        let mut told = Vec::new();
        let mut fresh = Vec::new();
        let mut reader = Reader::new(&self.inotify, &mut buffer);
        while let Ok(event) = reader.next() {
            let flags = event.events();
            if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
                told.push(Event::Lost);
                continue;
            }
            if flags.contains(ReadFlags::IGNORED) {
                self.watched.remove(&event.wd());
                continue;
            }
            let Some(folder) = self.watched.get(&event.wd()) else {
                continue;
            };
            let name = event
                .file_name()
                .map(|name| name.to_string_lossy().into_owned());
            let Some(name) = name else { continue };
            let model = match &folder.model {
                Some(model) => model.clone(),
                // In a repository itself: files and hidden folders are no models.
                None if name.starts_with('.') || !flags.contains(ReadFlags::ISDIR) => {
                    if name.starts_with('.') || !folder.path.join(&name).is_dir() {
                        continue;
                    }
                    name.clone()
                }
                None => name.clone(),
            };
            let file = folder.path.join(&name);
            if flags.contains(ReadFlags::ISDIR) || flags.contains(ReadFlags::CREATE) {
                let (path, depth) = (file.clone(), folder.depth + 1);
                if !name.starts_with('.') && path.is_dir() {
                    fresh.push(Watched {
                        path,
                        model: Some(model.clone()),
                        depth,
                    });
                }
            }
            told.push(kind(flags, model, file));
        }
        for folder in fresh {
            let (path, model) = (folder.path.clone(), folder.model.clone());
            self.watch(folder);
            let filled = fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some());
            if let Some(model) = model.filter(|_| filled) {
                told.push(Event::Found { model });
            }
        }
        told
    }
}

fn kind(flags: ReadFlags, model: String, file: PathBuf) -> Event {
    let ended =
        ReadFlags::CLOSE_WRITE | ReadFlags::DELETE | ReadFlags::MOVED_FROM | ReadFlags::MOVED_TO;
    if flags.contains(ReadFlags::ISDIR) {
        Event::Changed { model }
    } else if flags.intersects(ended) {
        Event::Written { model, file }
    } else if flags.contains(ReadFlags::MODIFY) {
        Event::Writing { model, file }
    } else {
        Event::Changed { model }
    }
}
