-- wrk … -- <tokens file> <seed>: an order with two items each, under a fresh key, by one user after the other.
dofile("perf/wrk/report.lua")

local BODY = '{"currency": "EUR", "metadata": {"basket": "17"}, "items": ['
  .. '{"sku": "lamp-1", "name": "Lamp", "quantity": 2, "unit_price_cents": 625},'
  .. '{"sku": "cable-3", "name": "Cable", "quantity": 1, "unit_price_cents": 790}]}'
local heads, run, counter = {}, "", 0

function init(args)
  for token in io.lines(args[1]) do
    heads[#heads + 1] = "POST /orders HTTP/1.1\r\nHost: " .. wrk.headers["Host"]
      .. "\r\nContent-Type: application/json\r\nContent-Length: " .. #BODY
      .. "\r\nAuthorization: Bearer " .. token .. "\r\nIdempotency-Key: "
  end
  math.randomseed(tonumber(args[2]))
  run = args[2] .. "-" .. math.random(1, 1e9) .. "-"
end

function request()
  counter = counter + 1
  return heads[counter % #heads + 1] .. run .. counter .. "\r\n\r\n" .. BODY
end
