-- wrk … -- <tokens file> <paths file> <first>: cycles through the paths from the first-th on. A path's line is the
-- number of its user's token, a tab, the path. {n} in a path becomes a number that no other request of this run has.
dofile("perf/wrk/report.lua")

local heads, users, paths, counter = {}, {}, {}, 0

function init(args)
  for token in io.lines(args[1]) do
    heads[#heads + 1] = " HTTP/1.1\r\nHost: " .. wrk.headers["Host"] .. "\r\nAuthorization: Bearer " .. token .. "\r\n\r\n"
  end
  for line in io.lines(args[2]) do
    local user, path = line:match("^(%d+)\t(.+)$")
    users[#users + 1], paths[#paths + 1] = tonumber(user), path
  end
  counter = tonumber(args[3])
end

function request()
  counter = counter + 1
  local at = counter % #paths + 1
  return "GET " .. paths[at]:gsub("{n}", string.format("%06d", counter)) .. heads[users[at]]
end
