#!lua flags=allow-oom
-- Forgets an owner that leaves, in every lane where it holds nothing: a consumer takes its leases with
-- it when it is deleted.
--
-- KEYS[1], ARGV[1..4]  see ground.lua
-- ARGV[5]  the owner
-- Result: lanes in which it holds something

local owner = ARGV[5]
local holding = 0
for _, lane in ipairs(redis.call('SMEMBERS', LANES)) do
  local held = redis.pcall('XPENDING', stream_of(lane), GROUP, '-', '+', 1, owner)
  if not is_error(held) then
    if #held == 0 then
      redis.call('XGROUP', 'DELCONSUMER', stream_of(lane), GROUP, owner)
    else
      holding = holding + 1
    end
  end
end
if holding == 0 then redis.call('ZREM', OWNERS, owner) end
return holding
