-- The request is wrk's own, the same each time.
dofile("perf/wrk/report.lua")
