#!lua
-- Stores messages, each once. Refused as a whole, with nothing stored, when memory is short (no
-- allow-oom above).
--
-- KEYS[1], ARGV[1..4]  see ground.lua
-- ARGV[5]    unfinished messages beyond which none is taken
-- ARGV[6..]  for each message: id, payload, ms from its receipt to its deadline, ms since its receipt
-- Result: one of 'accepted', 'duplicate', 'full' for each, in order
-- Repeating it after a lost answer finds duplicates.

local capacity = tonumber(ARGV[5])
local open = redis.call('ZCARD', DEADLINES)
local answers, accepted, duplicates = {}, 0, 0

for at = 6, #ARGV, 4 do
  local id, payload, received = ARGV[at], ARGV[at + 1], now - tonumber(ARGV[at + 3])
  local deadline = received + tonumber(ARGV[at + 2])
  local known, is_occupied = is_known(id)
  if known then
    duplicates = duplicates + 1
    answers[#answers + 1] = 'duplicate'
  elseif open + accepted >= capacity then
    answers[#answers + 1] = 'full'
  else
    accepted = accepted + 1
    if is_occupied then make_way(id) end
    enlist('in')
    local state = FRESH .. whole(deadline) .. '|e' .. add_entry('in', id, '0', false)
    redis.call('HSET', record_of(id), 'ct', payload, 'acc', whole(received), 'left', 1,
      's0', state)
    list_deadline_later(id, deadline)
    answers[#answers + 1] = 'accepted'
  end
end

list_deadlines()
if accepted > 0 then
  tally('accepted', accepted)
  tally('made', accepted)
end
if duplicates > 0 then tally('duplicates', duplicates) end
return answers
