use std::path::{Path, PathBuf};

use protocol::resource::{Endpoint, parse_endpoints};

use crate::source::Found;
use crate::{Error, FileWatch, Source};

/// A list of servers in a file.
#[derive(Debug)]
pub(crate) struct FileSource {
    path: PathBuf,
    watch: FileWatch,
}

impl FileSource {
    pub(crate) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            watch: FileWatch::new(vec![path.to_owned()]),
        }
    }

    fn read(&self) -> Result<Vec<Endpoint>, Error> {
        let file = self.path.display().to_string();
        let text = std::fs::read_to_string(&self.path).map_err(|error| Error::File {
            file: file.clone(),
            reason: error.to_string(),
        })?;
        Ok(parse_endpoints(&text, &file)?)
    }
}

impl Source for FileSource {
    fn next(&mut self) -> Found<'_> {
        Box::pin(async {
            self.watch.changed().await;
            self.read()
        })
    }

    /// Somebody wrote `[]`: an empty file is refused.
    fn empty_is_meant(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_list_is_followed_and_a_mistake_is_told_with_its_place() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("servers.yaml");
        let mut source = FileSource::new(&path);
        let missing = source
            .next()
            .await
            .expect_err("there is no file")
            .to_string();
        assert!(
            missing.contains("servers.yaml` cannot be read"),
            "{missing}"
        );
        for (text, expected) in [
            ("- a:1\n- b:1\n", Ok(2)),
            ("- a:1\n- b:x\n", Err("servers.yaml:2:3: ")),
            ("[]", Ok(0)),
        ] {
            std::fs::write(&path, text).expect("ours");
            match (source.next().await, expected) {
                (Ok(servers), Ok(count)) => assert_eq!(servers.len(), count),
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
                (found, expected) => panic!("expected {expected:?}, got {found:?}"),
            }
        }
    }
}
