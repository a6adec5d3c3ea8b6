// Package cond owns conditions: it checks and compiles the expressions of a rules file, takes
// conditions apart into questions for a label or a fact, evaluates them for a job within a number
// of steps, says why one holds or does not, proves what several of them mean together, and has the
// index that finds the rules which could take a job. Package rules compiles and decides with it,
// and lint asks it what can be proved.
package cond
