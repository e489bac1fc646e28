use std::path::Path;

use redb::{Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, TableDefinition};

use super::{Record, Store, StoreError};

/// In a file, by redb.
#[derive(Debug)]
pub struct Embedded {
    database: Database,
    folder: String,
}

/// Jobs as JSON: what a later version adds has a default.
const JOBS: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("jobs");

const FILE: &str = "jobs.redb";

impl Embedded {
    /// Makes the folder and the file where there are none.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let name = folder.display().to_string();
        std::fs::create_dir_all(folder).map_err(|error| broken(&name, &error))?;
        let database = match Database::create(folder.join(FILE)) {
            Ok(database) => database,
            Err(DatabaseError::DatabaseAlreadyOpen) => {
                return Err(StoreError::Busy { folder: name });
            }
            Err(error) => return Err(broken(&name, &error)),
        };
        Ok(Self {
            database,
            folder: name,
        })
    }

    fn put(&self, changed: &[Record], gone: &[u64]) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        {
            let mut table = transaction.open_table(JOBS)?;
            for record in changed {
                let json = serde_json::to_vec(record)
                    .map_err(|error| redb::Error::Corrupted(error.to_string()))?;
                table.insert(record.number, json.as_slice())?;
            }
            for number in gone {
                table.remove(number)?;
            }
        }
        transaction.commit()?;
        Ok(())
    }

    fn all(&self) -> Result<Vec<Record>, redb::Error> {
        // The table is there once something has been written.
        self.put(&[], &[])?;
        let table = self.database.begin_read()?.open_table(JOBS)?;
        let mut records = Vec::new();
        for row in table.iter()? {
            let (number, json) = row?;
            let record = serde_json::from_slice(json.value()).map_err(|error| {
                redb::Error::Corrupted(format!("job {}: {error}", number.value()))
            })?;
            records.push(record);
        }
        Ok(records)
    }
}

impl Store for Embedded {
    fn load(&self) -> Result<Vec<Record>, StoreError> {
        self.all().map_err(|error| broken(&self.folder, &error))
    }

    fn write(&self, changed: &[Record], gone: &[u64]) -> Result<(), StoreError> {
        self.put(changed, gone)
            .map_err(|error| broken(&self.folder, &error))
    }
}

fn broken(folder: &str, error: &impl std::error::Error) -> StoreError {
    StoreError::Broken {
        folder: folder.to_owned(),
        reason: error.to_string(),
    }
}
