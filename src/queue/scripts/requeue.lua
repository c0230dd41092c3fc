#!lua
-- Sends dead letters back as if new. Refused as a whole when memory is short (no allow-oom above).
--
-- KEYS[1], ARGV[1..4]  see ground.lua
-- ARGV[5]    ms from now to the new deadline
-- ARGV[6..]  for each: message id, index
-- Result: {requeued, skipped (the text is gone), unknown (no letter, or no more)}
-- Repeating it finds no letters.

local deadline = now + tonumber(ARGV[5])
local requeued, skipped, unknown = 0, 0, 0

local function requeue(id, index)
  local record = record_of(id)
  local piece, cause = read_letter(id, index)
  if not piece then
    unknown = unknown + 1
    return
  end
  local needed = index > 0 and 'rc' .. index or 's0'
  local fields = redis.call('HMGET', record, 'ct', needed, 'raw', 'left')
  if not fields[1] or not fields[2] or fields[3] then
    skipped = skipped + 1
    return
  end
  redis.call('ZREM', letters_of(cause), member_of(piece))
  redis.call('HDEL', record, 'x' .. index, 'h' .. index, 'gone')
  redis.call('PERSIST', record)
  tally(piece.state, -1)
  piece.state, piece.attempts, piece.pauses, piece.handed, piece.maybe = 'P', 0, 0, 0, '0'
  piece.deadline = deadline
  enlist(piece.lane)
  make_ready(piece, false)
  count(record, 'left', 1)
  count(record, 'lt', -1)
  local set = moment(redis.call('ZSCORE', DEADLINES, id))
  if not set or set > deadline then redis.call('ZADD', DEADLINES, whole(deadline), id) end
  requeued = requeued + 1
end

for at = 6, #ARGV, 2 do requeue(ARGV[at], tonumber(ARGV[at + 1])) end
return { requeued, skipped, unknown }
