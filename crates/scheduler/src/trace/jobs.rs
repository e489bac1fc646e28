//! Lists of jobs, in the columns of two public traces.
//!
//! Philly (ElasticFlow's copy): `timestamp,duration,num_gpus,cluster`; a moment as `2017-10-09 07:01:55`, seconds.
//! Chronus: `submit_time,duration,num_gpu,user,expect_time_list,best_effort,interval`; all times in minutes, and what is expected is
//! an end so long after the job came.

use super::table::{Row, Table};
use crate::error::Error;
use crate::queue::{Job, JobId, Level, Priority};
use crate::request::{MILLI, Request};
use crate::simulate::jobs::Arrival;

/// GPUs of the machines that both traces are from.
const GPUS_EACH: u32 = 8;

const MINUTE_MS: u64 = 60_000;

/// Longer than any trace; keeps sums far from the ends of the types.
const MINUTES_MAX: u64 = 100_000_000;

/// In the order in which they come, numbered from 0, the first one at 0. Jobs for more GPUs than a machine has are gangs of
/// whole machines or of equal parts of them; those without a GPU get one. With a deadline a job is realtime at level 4,
/// without one it may be pre-empted, at level 1. How long jobs run is known when they come, as both papers assume.
pub fn jobs(text: &str) -> Result<Vec<Arrival>, Error> {
    let chronus = text
        .lines()
        .next()
        .is_some_and(|header| header.contains("expect_time_list"));
    let mut jobs = if chronus {
        let columns = [
            "submit_time",
            "duration",
            "num_gpu",
            "user",
            "expect_time_list",
            "best_effort",
            "interval",
        ];
        Table::new(text, &columns)?.rows(chronus_job)?
    } else {
        let columns = ["timestamp", "duration", "num_gpus", "cluster"];
        Table::new(text, &columns)?.rows(philly_job)?
    };
    jobs.sort_by_key(|arrival| arrival.at_ms);
    let first = jobs.first().map_or(0, |arrival| arrival.at_ms);
    for (id, arrival) in (0..).zip(&mut jobs) {
        arrival.job.id = JobId(id);
        arrival.at_ms -= first;
        if let Some(deadline) = &mut arrival.job.deadline_ms {
            *deadline -= first;
        }
    }
    Ok(jobs)
}

fn chronus_job(row: &Row<'_>) -> Result<Arrival, Error> {
    let minutes =
        |column| -> Result<u64, Error> { Ok(row.whole::<u64>(column, MINUTES_MAX)? * MINUTE_MS) };
    let at_ms = minutes("submit_time")?;
    let runs_ms = minutes("duration")?.max(1);
    let best_effort = row.whole::<u64>("best_effort", 1)? == 1;
    let mut job = job(row, ("num_gpu", "user"), runs_ms)?;
    // Leases of so long; the work is saved at the end of each.
    job.checkpoint_ms = Some(minutes("interval")?.max(MINUTE_MS));
    if !best_effort {
        job.deadline_ms = Some(at_ms + minutes("expect_time_list")?);
        job.priority = Priority::Realtime;
        job.qos = level(4);
        job.preemptible = false;
    }
    Ok(Arrival {
        at_ms,
        runs_ms,
        job,
    })
}

fn philly_job(row: &Row<'_>) -> Result<Arrival, Error> {
    let seconds = row.optional_number("duration")?;
    let seconds = seconds.ok_or_else(|| row.problem("duration", "is empty"))?;
    if seconds > 1e9 {
        return Err(row.problem("duration", "at most 1000000000"));
    }
    let at_ms = moment_ms(row.text("timestamp")?)
        .ok_or_else(|| row.problem("timestamp", "is no moment like `2017-10-09 07:01:55`"))?;
    let runs_ms = milliseconds(seconds).max(1);
    Ok(Arrival {
        at_ms,
        runs_ms,
        job: job(row, ("num_gpus", "cluster"), runs_ms)?,
    })
}

fn job(row: &Row<'_>, (gpus, tenant): (&str, &str), runs_ms: u64) -> Result<Job, Error> {
    let asked: u32 = row.whole(gpus, 4_096)?;
    let asked = asked.max(1);
    let (gang, each) = if asked <= GPUS_EACH {
        (1, asked)
    } else {
        let each = (1..=GPUS_EACH)
            .rev()
            .find(|each| asked.is_multiple_of(*each));
        let each = each.unwrap_or(1);
        (asked / each, each)
    };
    let request = Request {
        gpus: u8::try_from(each).unwrap_or(u8::MAX),
        gpu_milli: MILLI,
        ..Request::default()
    };
    Ok(Job {
        tenant: row.text(tenant)?.to_owned(),
        gang,
        qos: level(1),
        preemptible: true,
        expected_ms: Some(runs_ms),
        ..Job::new(0, request)
    })
}

fn level(number: u8) -> Level {
    Level::try_from(number).unwrap_or_default()
}

/// Since the epoch, of a moment without a zone (days by Howard Hinnant's `days_from_civil`, from March on).
fn moment_ms(text: &str) -> Option<u64> {
    let (date, time) = text.split_once(' ')?;
    let numbers = |text: &str, between: char| -> Option<[u64; 3]> {
        let parts: Option<Vec<u64>> = text.split(between).map(|part| part.parse().ok()).collect();
        parts?.try_into().ok()
    };
    let [year, month, day] = numbers(date, '-')?;
    let [hour, minute, second] = numbers(time, ':')?;
    let possible = (1970..10_000).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second < 61;
    if !possible {
        return None;
    }
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year / 400, year % 400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year;
    let days = days.checked_sub(719_468)?;
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1_000)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "checked: neither negative nor above 10^9 seconds"
)]
fn milliseconds(seconds: f64) -> u64 {
    (seconds * 1e3).round() as u64
}

#[cfg(test)]
mod tests;
