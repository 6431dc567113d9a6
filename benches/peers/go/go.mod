module gort-bench

go 1.21

require golang.org/x/sync v0.11.0
