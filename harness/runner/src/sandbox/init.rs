//! The init of a sandbox: runs one scenario once, cuts it where it asks for that, and watches.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cr::process::Status;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpid};
use scenario::{Call, Fact, Loss, Name, Scenario, log};
use subject::Start;

use super::closer::Closer;
use super::own_root::{self, OwnRoot};
use super::world::{self, World};
use crate::bystander::Bystander;
use crate::engine::{self, Cut, CutError, EngineSpec, Flavour, Workshop};
use crate::job::{Answer, Job, Times};
use crate::observe::{self, Numbers};
use crate::park::{Parking, Stop};
use crate::pids;
use crate::survey::{self, Names, Process, Survey};

/// Runs the job and gives its answer away. The caller is pid 1 of new mount and pid namespaces and
/// exits afterwards, which ends every process of the run.
///
/// # Errors
///
/// Those of `reply`.
pub(super) fn run(
    job: &Job,
    closer: Closer,
    reply: impl Fn(&Answer) -> io::Result<()>,
) -> io::Result<()> {
    let mut run = match Run::prepare(job, closer) {
        Ok(run) => run,
        Err(End(answer)) => return reply(&answer),
    };
    let answer = run.finish().unwrap_or_else(|End(answer)| *answer);
    // A process that waits for permission holds up the end of every group that is told of the file,
    // and so the end of this process, which holds some.
    if getpid().as_raw() == 1 {
        let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
    }
    // What the run holds is closed after the answer: the end of a group takes milliseconds.
    reply(&answer)
}

/// A run that ended before its last step.
struct End(Box<Answer>);

impl End {
    fn broken(reason: impl Into<String>) -> Self {
        Self(Box::new(Answer::Broken(reason.into())))
    }
}

impl From<String> for End {
    fn from(reason: String) -> Self {
        Self::broken(reason)
    }
}

/// A run under way.
struct Run<'a> {
    job: &'a Job,
    scenario: Scenario,
    world: World,
    plan: PathBuf,
    log: PathBuf,
    parking: Parking,
    closer: Closer,
    subject: Pid,
    names: Names,
    /// The root directory of a subject with namespaces of its own.
    own_root: Option<OwnRoot>,
    /// Numbers that processes of the run have had here.
    outside: HashMap<i32, Name>,
    /// Records of the log when the subject parked last.
    n_records: usize,
    n_cuts: u32,
    /// How often the subject parked and was let go on.
    n_parks: usize,
    surveys: Vec<(usize, Vec<Fact>)>,
    /// What the last cut left.
    behind_cut: Option<Survey>,
    losses: Vec<Loss>,
    notes: Vec<String>,
    /// From the first cut on.
    bystander: Option<Bystander>,
    times: Times,
    started: Instant,
}

impl<'a> Run<'a> {
    fn prepare(job: &'a Job, closer: Closer) -> Result<Self, End> {
        let started = Instant::now();
        let scenario = scenario::parse(&job.scenario)
            .map_err(|_| End::broken("the scenario does not parse"))?
            .scenario;
        let myself = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut programs = vec![myself.as_path()];
        programs.extend(job.engine.program());
        let world = world::make(job.filesystem, &programs)
            .map_err(|reason| End(Box::new(Answer::Skipped(reason))))?;
        let plan = world.control.join("plan");
        let log = world.control.join("log");
        fs::write(&plan, &job.scenario).map_err(|error| format!("plan: {error}"))?;
        fs::write(&log, b"").map_err(|error| format!("log: {error}"))?;
        let mut parking = Parking::new(Duration::from_millis(job.limit_ms))?;
        let mut names = Names::of(&scenario, &world.root);
        let (own_root, subject) = match job.flavour {
            Flavour::Host => {
                let files = (plan.as_path(), log.as_path());
                let subject = if job.engine.takes_programs_alone() {
                    engine::start_program(&myself, &[files.0, files.1], &world.root)?
                } else {
                    engine::start_subject(&Start::Fresh, files, &world.root, None)?
                };
                (None, subject)
            }
            Flavour::Ns => {
                parking.listen(&log)?;
                let own = OwnRoot::make(&world, &myself)
                    .map_err(|reason| End(Box::new(Answer::Skipped(reason))))?;
                let subject = own.start([&plan, &log], &world.root)?;
                names.reach(own_root::reach(subject, &world.root));
                (Some(own), subject)
            }
        };
        let times = Times {
            setup_us: micros(started),
            ..Times::default()
        };
        Ok(Self {
            job,
            scenario,
            world,
            plan,
            log,
            parking,
            closer,
            subject,
            names,
            own_root,
            outside: HashMap::new(),
            n_records: 0,
            n_cuts: 0,
            n_parks: 0,
            surveys: Vec::new(),
            behind_cut: None,
            losses: Vec::new(),
            notes: Vec::new(),
            bystander: None,
            times,
            started,
        })
    }

    /// Follows the subject from park to park until its last step.
    fn finish(&mut self) -> Result<Answer, End> {
        loop {
            match self.wait_parked() {
                Stop::Parked => {}
                Stop::Ended(how) => return Err(self.stuck(&how)),
                Stop::TimedOut => {
                    let limit = self.job.limit_ms;
                    return Err(self.stuck(&format!("no progress for {limit} ms")));
                }
            }
            let records = self.records()?;
            self.n_records = records.len();
            let step = records.last().map_or(log::END, |record| record.step);
            if let Some(passed) = passed(&self.scenario, &records, self.n_parks) {
                return Err(End::broken(format!(
                    "somebody else sent SIGCONT to the subject where it was parked: step {}",
                    passed + 1
                )));
            }
            if step == log::END {
                return self.conclude(&records);
            }
            let index = step as usize;
            match self.scenario.steps.get(index).map(|step| step.call) {
                Some(Call::Checkpoint) => self.cut(index, &records)?,
                Some(Call::Look) => self.look(index, &records)?,
                _ => {
                    return Err(End::broken(format!(
                        "somebody else stopped the subject: behind step {}, which does not park",
                        index + 1
                    )));
                }
            }
            self.n_parks += 1;
            kill(self.subject, Signal::SIGCONT).map_err(|errno| format!("continue: {errno}"))?;
        }
    }

    fn wait_parked(&self) -> Stop {
        if self.own_root.is_none() {
            return self.parking.wait(self.subject);
        }
        let n_records = self.n_records;
        self.parking.wait_parking(self.subject, || {
            // Whoever writes a record holds the lock until the log is closed again.
            let Ok(log) = fs::File::open(&self.log) else {
                return false;
            };
            if log.lock().is_err() {
                return false;
            }
            let records = self.records().unwrap_or_default();
            let last = records.last().filter(|_| records.len() > n_records);
            last.is_some_and(|last| {
                let step = self.scenario.steps.get(last.step as usize);
                last.step == log::END
                    || step.is_some_and(|step| matches!(step.call, Call::Checkpoint | Call::Look))
            })
        })
    }

    /// The processes of the run, by their numbers here.
    fn processes(&mut self, records: &[log::Record]) -> Result<Vec<Process>, String> {
        let mut processes = observe::processes(&self.scenario, records, self.subject);
        if self.own_root.is_some() {
            let outer = pids::by_inner()?;
            for process in processes
                .iter_mut()
                .filter(|process| process.name.is_some())
            {
                process.pid = outer.get(&process.pid).copied().unwrap_or(process.pid);
            }
        }
        for process in &processes {
            let main = || Name(Name::MAIN.to_owned());
            let name = process.name.clone().unwrap_or_else(main);
            self.outside.insert(process.pid.as_raw(), name);
        }
        Ok(processes)
    }

    /// A run that goes no further. Control has shown that the scenario itself does, so after a cut
    /// by an engine it is the engine's failure.
    fn stuck(&self, how: &str) -> End {
        let reason = format!("{}: {how}", self.where_now());
        if self.n_cuts > 0 && self.job.engine != EngineSpec::Control {
            End(Box::new(Answer::Failed(format!("after the cut: {reason}"))))
        } else {
            End::broken(reason)
        }
    }

    fn cut(&mut self, index: usize, records: &[log::Record]) -> Result<(), End> {
        let images = self.world.control.join(format!("cut{}", self.n_cuts));
        self.n_cuts += 1;
        fs::create_dir(&images).map_err(|error| format!("{}: {error}", images.display()))?;
        let before = Instant::now();
        let processes = self.processes(records)?;
        let earlier = Survey::take(&processes, &self.names)?;
        if self.job.engine.takes_programs_alone()
            && let Some(fd) = earlier.ghost_of_whole_microseconds(self.behind_cut.as_ref())
        {
            return Err(End(Box::new(Answer::Again(format!(
                "fd {fd}: a time of the ghost happens to be of whole microseconds"
            )))));
        }
        let mounts = survey::mounts(self.subject, self.job.flavour)?;
        let bystander = match self.bystander.take() {
            Some(bystander) => bystander,
            None => Bystander::new()?,
        };
        let bystander = self.bystander.insert(bystander);
        bystander.attach(&self.names, &earlier);
        self.times.watch_us += micros(before);

        let before = Instant::now();
        let cut = engine::cut(
            &self.job.engine,
            &Workshop {
                subject: self.subject,
                plan: &self.plan,
                log: &self.log,
                world: &self.world.root,
                reach: self.names.world(),
                own_root: self.own_root.as_ref(),
                images: &images,
                names: self.names.candidates(),
                criu_opts: &self.scenario.criu_opts,
                parking: &self.parking,
                closer: &self.closer,
            },
        );
        self.times.cut_us += micros(before);
        self.keep(&images)?;
        let Cut {
            subject,
            losses,
            notes,
        } = cut.map_err(|error| {
            End(Box::new(match error {
                CutError::Skip(reason) => Answer::Skipped(reason),
                CutError::Refused(reason) => Answer::Refused(self.named_below_world(&reason)),
                CutError::Failed(reason) => Answer::Failed(self.named_below_world(&reason)),
            }))
        })?;

        let before = Instant::now();
        self.subject = subject;
        if self.own_root.is_some() {
            self.names.reach(own_root::reach(subject, &self.world.root));
        }
        let processes = self.processes(records)?;
        let mut heard = match &self.bystander {
            Some(bystander) => bystander.drain()?,
            None => Vec::new(),
        };
        if processes.len() > 1 {
            // Several processes die at once and close their files in no fixed order.
            heard.sort_by_cached_key(|heard| format!("{heard:?}"));
            // Programs may bring them back at once too, each with opens of its own. Equal events that
            // follow each other are one (`inotify_merge`), so it is chance how many there are.
            if self.job.engine.takes_programs_alone() {
                heard.dedup();
            }
        }
        let later = Survey::take(&processes, &self.names)?;
        let mut facts = later.facts(Some(&earlier));
        self.behind_cut = Some(later);
        facts.extend(heard.into_iter().map(Fact::Bystander));
        facts.extend(survey::new_mounts(&mounts, self.subject, self.job.flavour)?);
        let losses: Vec<Loss> = losses
            .into_iter()
            .map(|loss| self.below_world(loss))
            .collect();
        facts.extend(losses.iter().cloned().map(Fact::Loss));
        self.surveys.push((index, facts));
        self.losses.extend(losses);
        self.notes.extend(notes);
        self.times.watch_us += micros(before);
        Ok(())
    }

    fn look(&mut self, index: usize, records: &[log::Record]) -> Result<(), End> {
        let before = Instant::now();
        let processes = self.processes(records)?;
        let step = &self.scenario.steps[index];
        let fd = observe::looked_at(step, &self.scenario, records)
            .ok_or_else(|| format!("step {index}: look at what no step made"))?;
        let survey = Survey::take(&processes, &self.names)?;
        let facts = survey.facts_of(step.process.as_ref(), fd);
        self.surveys.push((index, facts));
        self.times.watch_us += micros(before);
        Ok(())
    }

    /// The audit after the last step. Nobody listens any more, so it may make events.
    fn conclude(&mut self, records: &[log::Record]) -> Result<Answer, End> {
        let before = Instant::now();
        let processes = self.processes(records)?;
        let mut survey = Survey::take(&processes, &self.names)?;
        let drained = survey::drain(&processes, &self.names)?;
        survey.read_contents()?;
        let mut facts = survey.facts(None);
        facts.extend(survey::tree(self.names.world())?);
        facts.extend(survey::leftovers(&processes)?);
        let transcript = observe::transcript(
            &self.scenario,
            records,
            std::mem::take(&mut self.surveys),
            facts,
            drained,
            &Numbers {
                main: pids::inner(self.subject).unwrap_or(self.subject),
                outside: &self.outside,
            },
            &self.names,
        )?;
        self.times.watch_us += micros(before);
        self.times.total_us = micros(self.started);
        self.times.resident_kib = resident_kib(self.subject);
        Ok(Answer::Finished {
            transcript,
            losses: std::mem::take(&mut self.losses),
            notes: std::mem::take(&mut self.notes),
            times: self.times,
        })
    }

    /// A loss with paths as facts show them: where the world is mounted is nobody's business.
    fn below_world(&self, loss: Loss) -> Loss {
        Loss {
            kind: loss.kind,
            invariant: loss.invariant,
            object: self.named_below_world(&loss.object),
            reason: self.named_below_world(&loss.reason),
        }
    }

    fn named_below_world(&self, text: &str) -> String {
        text.replace(&format!("{}/", self.world.root.display()), "")
    }

    fn records(&self) -> Result<Vec<log::Record>, End> {
        let bytes = fs::read(&self.log).map_err(|error| format!("log: {error}"))?;
        log::decode(&bytes).map_err(|error| End::broken(error.to_string()))
    }

    /// The step that was under way, for a message.
    fn where_now(&self) -> String {
        let next = self
            .records()
            .ok()
            .and_then(|records| records.last().map(|record| record.step))
            .map_or(0, |step| step as usize + 1);
        match self.scenario.steps.get(next) {
            Some(step) => format!("step {}: {step}", next + 1),
            None => "after the last step".to_owned(),
        }
    }

    fn keep(&self, images: &Path) -> Result<(), End> {
        let Some(keep) = &self.job.keep else {
            return Ok(());
        };
        copy_tree(images, &keep.join(images.file_name().expect("made above")))
            .map_err(|error| End::broken(format!("keep {}: {error}", keep.display())))
    }
}

/// The step at which the main process parked and went on though nobody here had let it: behind the
/// `n_parks` parkings that are over there is one more, and a record of that process behind it.
fn passed(scenario: &Scenario, records: &[log::Record], n_parks: usize) -> Option<u32> {
    let step = |record: &log::Record| scenario.steps.get(record.step as usize);
    let parks = |record: &log::Record| {
        step(record).is_some_and(|step| matches!(step.call, Call::Checkpoint | Call::Look))
    };
    let is_of_main = |record: &log::Record| step(record).is_none_or(|step| step.process.is_none());
    let mut parkings = records
        .iter()
        .enumerate()
        .filter(|(_, record)| parks(record));
    let (at, parked) = parkings.nth(n_parks)?;
    let went_on = records[at + 1..].iter().any(is_of_main);
    went_on.then_some(parked.step)
}

/// Resident memory of a process; 0 where the kernel does not say.
fn resident_kib(pid: Pid) -> u64 {
    let status = Status::of(pid).ok();
    let size = status.as_ref().and_then(|status| status.field("VmRSS"));
    size.and_then(|size| size.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

fn copy_tree(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_that_somebody_else_let_go_on_is_told_from_one_that_parked() {
        let text =
            "# Parks twice.\nfork() = p\ncheckpoint\n[p] chdir(\".\")\nlook(3)\nchdir(\".\")\n";
        let scenario = scenario::parse(text).expect("it parses").scenario;
        let check = |steps: &[u32], n_parks, expected| {
            let record = |step: &u32| log::Record {
                step: *step,
                ret: 0,
                errno: 0,
                chunks: Vec::new(),
            };
            let records: Vec<log::Record> = steps.iter().map(record).collect();
            assert_eq!(passed(&scenario, &records, n_parks), expected, "{steps:?}");
        };
        check(&[], 0, None);
        check(&[0, 1], 0, None);
        check(&[0, 1, 2], 0, None);
        check(&[0, 1, 2, 3], 1, None);
        check(&[0, 1, 2, 3, 4, log::END], 2, None);
        check(&[0, 1, 2, 3], 0, Some(1));
        check(&[0, 1, 2, 3, log::END], 1, Some(3));
    }
}
