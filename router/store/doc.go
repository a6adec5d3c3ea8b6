// Package store owns the router's durable state in SQL: deliveries, jobs,
// runners and claims, in one SQLite file, or in PostgreSQL. Its methods are the
// Stores of the other packages, which document them. Statements are written for
// SQLite; postgresText writes them for PostgreSQL, and its schema has the
// functions that SQLite has besides.
//
// One goroutine writes. It puts the changes that wait at the moment into one
// transaction, so that many share the cost of one sync to disk and one alone
// waits for nobody. Reads have connections of their own, and those for operators
// are apart from the router's: see Store.Reader.
//
// Whatever changes a state is one of the statements below, each a constant of
// this package that names the states which it leaves. A statement that writes a
// reason writes its cause, a router.Cause, as well. Tests fail for a statement
// that changes states otherwise.
//
// # Transitions of jobs
//
// "new" is a job that was not known. GitHub speaks by deliveries, and by the
// answers to package intake.
//
//	from                                                                  to                           by        statement
//	new                                                                   held                         GitHub    receiveWaitingSQL
//	new, held                                                             queued                       GitHub    receiveQueuedSQL
//	queued, retrying, dispatched                                          held                         GitHub    holdForGitHubSQL
//	new, held, queued, retrying, dispatched, denied, unroutable           running                      GitHub    receiveRunningSQL
//	new, held, queued, retrying, dispatched, running, denied, unroutable  completed                    GitHub    receiveCompletedSQL
//	queued, retrying                                                      ignored, denied, unroutable  dispatch  settleSQL
//	queued, retrying                                                      held                         dispatch  holdForLimitSQL
//	queued, retrying                                                      held                         dispatch  holdSiblingSQL
//	queued                                                                held                         dispatch  holdToAskSQL
//	queued, retrying                                                      held                         dispatch  holdOutdatedSQL
//	queued                                                                retrying                     dispatch  retrySQL
//	queued, retrying                                                      dispatched                   dispatch  dispatchedSQL
//	held                                                                  queued                       dispatch  releaseHeldSQL
//	held                                                                  queued                       dispatch  releaseOutdatedSQL
//	held                                                                  queued                       store     releaseSQL
//	held                                                                  queued                       store     releaseKeySQL
//	held                                                                  queued                       store     releaseSiblingsSQL
//	queued, dispatched                                                    retrying                     runners   retryAfterLossSQL
//	queued, retrying, dispatched                                          held                         runners   holdIdleSQL
//	queued, dispatched                                                    retrying                     runners   requeueSQL
//	queued, retrying                                                      dispatched                   claim     jobBoundSQL
//	held                                                                  queued                       operate   resumeSQL
//	retrying, held, ignored, denied, unroutable                           queued                       operate   redecideSQL
//	held, queued, retrying, dispatched, unroutable                        denied                       operate   cancelSQL
//
// A job that leaves its place under a limit gives it to the one that is next
// (nextForPlace): releaseSQL and releaseKeySQL run in the same transaction.
// So does releaseSiblingsSQL for the jobs of its run that wait for others of it.
// Package claim settles, loses and binds as well, package dispatch redecides after
// the rules have changed, and a delivery requeues the job whose runner GitHub gave
// to another: see replace.
//
// # Transitions of runners
//
//	from                               to                        by        statement
//	new                                dispatched                dispatch  insertRunnerSQL
//	new                                dispatched                dispatch  takeWarmSQL
//	new                                dispatched, online, busy  runners   adoptRunnerSQL
//	dispatched                         online                    dispatch  registeredSQL
//	dispatched                         claimed, stopped          claim     claimRunnerSQL
//	claimed                            online                    claim     runnerOnlineSQL
//	dispatched, claimed, online        busy                      GitHub    runnerBusySQL
//	dispatched, claimed, online, busy  finished                  GitHub    runnerFinishedSQL
//	dispatched                         busy, finished            GitHub    presumedBusySQL
//	dispatched, busy                   finished                  GitHub    presumedFinishedSQL
//	busy                               finished                  Nomad     runnerEndedSQL
//	dispatched, claimed, online        lost                      runners   runnerLostSQL
//	dispatched, claimed, online        stopped                   runners   runnerStoppedSQL
//	dispatched                         stopped                   runners   stopForFallbackSQL
//
// A warm runner has a table of its own until a job takes it: in one transaction it becomes a
// runner of that job, whose token is its own.
//
// presumedBusySQL and presumedFinishedSQL are guesses about a runner that brings
// its own registration, of which GitHub knows another name.
package store
