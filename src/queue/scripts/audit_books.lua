#!lua flags=no-writes
-- The books and the lanes, for the audit to compare with what it finds.
--
-- KEYS[1], ARGV[1..4]  see ground.lua
-- Result: {made, S, D, X, open, accepted, lanes}

local answer = {}
for _, field in ipairs({ 'made', 'S', 'D', 'X', 'open', 'accepted' }) do
  answer[#answer + 1] = tonumber(redis.call('HGET', STAT, field) or '0') or 0
end
answer[#answer + 1] = redis.call('SMEMBERS', LANES)
return answer
