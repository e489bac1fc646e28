use super::*;

#[test]
fn philly_jobs_come_in_order_and_large_ones_are_gangs_of_machines() {
    let text = "timestamp,duration,num_gpus,gpu_time,cluster\n\
                2017-10-09 07:01:55,66.0,12,1,b\n\
                2017-10-09 07:01:50,5,1,1,a\n\
                2017-10-10 07:01:50,5,64,1,a\n";
    let jobs = jobs(text).unwrap();
    let seen = jobs.iter().map(|arrival| {
        let job = &arrival.job;
        (job.id.0, arrival.at_ms, job.gang, job.request.gpus)
    });
    let expected = [(0, 0, 1, 1), (1, 5_000, 2, 6), (2, 86_400_000, 8, 8)];
    assert_eq!(seen.collect::<Vec<_>>(), expected);
    assert_eq!(jobs[1].job.expected_ms, Some(66_000));
}

#[test]
fn chronus_jobs_have_deadlines_after_their_arrival_in_minutes() {
    let text = "job_id,user,num_gpu,submit_time,duration,interval,expect_time_list,best_effort\n\
                0,vc,0,100,10,5,15,0\n\
                1,vc,8,101,20,7,999,1\n";
    let jobs = jobs(text).unwrap();
    assert_eq!(jobs[0].job.deadline_ms, Some(15 * MINUTE_MS));
    assert_eq!(jobs[0].job.request.gpus, 1);
    assert!(!jobs[0].job.preemptible);
    assert_eq!(jobs[1].job.deadline_ms, None);
    assert_eq!(jobs[1].job.checkpoint_ms, Some(7 * MINUTE_MS));
}

#[test]
fn what_is_wrong_with_a_job_is_said_with_row_and_column() {
    for (row, said) in [
        (
            "2017-13-09 07:01:55,66,1,x",
            "row 2, column `timestamp`: is no moment",
        ),
        (
            "2017-10-09 07:01:55,-1,1,x",
            "row 2, column `duration`: `-1` is negative",
        ),
        (
            "2017-10-09 07:01:55,1,9999,x",
            "row 2, column `num_gpus`: 9999 is above 4096",
        ),
        (
            "2017-10-09 07:01:55,1,1,",
            "row 2, column `cluster`: is empty",
        ),
    ] {
        let text = format!("timestamp,duration,num_gpus,cluster\n{row}\n");
        let error = jobs(&text).unwrap_err().to_string();
        assert!(error.starts_with(said), "{error}");
    }
}
